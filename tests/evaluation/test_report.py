"""The page is well formed, loads nothing, and takes texts for texts."""

import base64
import csv
import dataclasses
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from flax_distil.core.nested import build
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.records import Records, SkippedSample
from flax_distil.evaluation.report import html as eval_html
from flax_distil.evaluation.report import plots as eval_plots
from flax_distil.evaluation.report.page import write_report
from flax_distil.evaluation.report.tables import write_samples
from flax_distil.evaluation.results import Evaluation, make_results
from flax_distil.metrics.word_diff import DiffPart
from flax_distil.text.normalizers import get_normalizer
from tests.evaluation.test_scores import RIGHT, SESSION, WRONG, ScoredRecords, prediction

ATTACK = """"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;</style>"""
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags that are opened and closed, their attributes, and the text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "not closed"

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _, _ in self.attributes}


def evaluation(**settings) -> Evaluation:
    """Return two models on two data sets, in quiet and in noise, whatever has a name having a nasty one."""
    model, name = f"b{ATTACK}", f"x{ATTACK}"
    hurt = ScoredRecords(
        Records([
            SESSION, prediction(0, f"wanted {ATTACK}", f"heard {ATTACK} twice", id=ATTACK),
            SkippedSample(data_set=name, index=1, sample_id=f"skipped {ATTACK}", kind="k", reason=ATTACK),
        ]),
        str,  # nothing is normalised away
    )  # fmt: skip
    config = build(
            EvalConfig,
        model_name_or_path=f"a+{model}", dataset_name=f"{name}+y", noise_types=["white", "babble"],
        snr_db=[10.0, 0.0, -10.0], **settings,
    )  # fmt: skip
    labels = list(config.models)
    units = {}
    for condition in config.conditions:
        for label, first in zip(labels, (hurt, hurt), strict=True):
            units[label, name, condition.name] = first
            units[label, "y", condition.name] = RIGHT if label == "a" else WRONG
    return Evaluation(
        config=config, normalize=get_normalizer("en"), parameters=dict.fromkeys(labels, 1_000_000),
        data_sets=[name, "y"], units=units, latency=dict.fromkeys(labels, Records([])),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    made = evaluation()
    write_report(made, make_results(made), path)
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_shows_every_section(report):
    page = Page(report)
    headings = re.findall(r"<h2>(.*?)</h2>", report)
    assert [heading.split()[0] for heading in headings] == [
        "Models", "Data", "Noise", "Word", "Most", "Most", "Skipped", "Settings",
    ]  # fmt: skip
    assert {"table", "td", "img", "summary"} <= page.tags | set(re.findall(r"<(\w+)", report))


def test_texts_from_outside_are_only_texts(report):
    page = Page(report)
    assert not {"script", "iframe", "object", "link", "base", "form"} & set(re.findall(r"<(\w+)", report))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert report.count("</style>") == 1
    shown = "".join(page.text)
    assert shown.count("<script>alert('x')</script>") >= 5  # names, ids, reasons, transcripts


def test_the_page_loads_nothing(report):
    page = Page(report)
    names = ("src", "href", "srcset", "action", "data")
    links = [value for _, name, value in page.attributes if name in names]
    assert links
    assert all(value.startswith("data:image/svg+xml;base64,") for value in links)
    assert "url(" not in report
    assert "@import" not in report
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", "content", policy) in page.attributes


def test_pictures_are_whole_drawings_without_links(report):
    pictures = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", report)
    assert len(pictures) == 3  # against time, by data set, in noise
    for picture in pictures:
        drawing = ET.fromstring(base64.b64decode(picture))
        assert drawing.tag.endswith("svg")
        for element in drawing.iter():
            assert element.tag.rpartition("}")[2] not in ("script", "image", "a")
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith("#")


def test_without_matplotlib_the_report_says_so_and_has_the_rest(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made = evaluation()
    write_report(made, make_results(made), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "There are no pictures: matplotlib is not installed" in "".join(Page(text).text)
    assert text.count("<table>") == 5
    assert [r.getMessage() for r in caplog.records] == [
        'the report has no pictures: matplotlib is not installed: pip install "flax-distil[plots]"'
    ]


def test_a_diff_marks_what_is_missing_invented_and_mistaken():
    words = tuple(f"w{number}" for number in range(40))
    shown = eval_html.diff([
        DiffPart("delete", ("<b>",), ()), DiffPart("equal", words, words), DiffPart("insert", (), ("new",)),
        DiffPart("substitute", ("cat",), ("dog",)),
    ])  # fmt: skip
    assert "<del>&lt;b&gt;</del> w0 w1" in shown
    assert "[28 words]" in shown
    assert 'w39 <ins>new</ins> <span class="sub"><del>cat</del> → <ins>dog</ins></span>' in shown
    assert Page(shown)


def test_every_curve_is_whole_in_its_panel(monkeypatch):
    figures = []
    monkeypatch.setattr(eval_plots, "_render", lambda figure: figures.append(figure) or b"")
    low, high = (eval_plots.Rate(wer=wer, interval=(wer / 2, wer * 2)) for wer in (5.0, 80.0))
    eval_plots.noise_plot({"white": {"a": [(10.0, low)]}, "babble": {"a": [(10.0, high)]}}, {"a": low})
    assert [axes.get_ylim()[0] for axes in figures[0].axes] == [0, 0]
    assert min(axes.get_ylim()[1] for axes in figures[0].axes) >= 160


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path):
    rate = eval_plots.Rate(wer=1.0, interval=(0.5, 2.0))
    svg = eval_plots.data_set_plot({"m$\\frac$": {"$x_$^{": rate}})
    assert b"<svg" in svg


def test_a_spreadsheet_finds_no_formula_in_texts(tmp_path):
    made = evaluation()
    label = next(iter(made.parameters))
    lines = [SESSION, prediction(0, '=HYPERLINK("http://x")', "+1-2", id="@SUM(A1)")]
    units = {key: ScoredRecords(Records(lines if key[0] == label else []), str) for key in made.units}
    write_samples(dataclasses.replace(made, units=units), tmp_path / "rows.csv")
    head, *rows = csv.reader((tmp_path / "rows.csv").read_text().splitlines())
    assert rows
    for row in (dict(zip(head, row, strict=True)) for row in rows):
        assert row["id"] == "'@SUM(A1)"
        assert row["reference"] == '\'=HYPERLINK("http://x")'
        assert row["prediction"] == "'+1-2"
