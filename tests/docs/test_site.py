"""The documentation site builds without a warning, is complete, and loads nothing from other hosts."""

import contextlib
import functools
import http
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import flax_distil
from flax_distil.cli.flags import POSITIONAL
from flax_distil.cli.main import COMMANDS, config_class
from flax_distil.core.nested import leaves
from tests.chromium import needs_chromium, open_page
from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # of the theme: an advertisement
    built = subprocess.run(mkdocs, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_flag_of_every_command_has_a_row(site):
    for command in COMMANDS:
        page = read(site / "reference" / "commands" / command.replace(" ", "-") / "index.html")
        flags = {leaf.name for leaf in leaves(config_class(command))} - set(POSITIONAL)
        assert flags - set(re.findall(r"<code>--(\w+)</code>", page)) == set()


def test_every_public_name_is_documented(site):
    page = read(site / "reference" / "python" / "index.html")
    page += read(site / "reference" / "configurations" / "index.html")
    shown = set(re.findall(r'id="flax_distil\.(?:[\w.]+\.)?(\w+)"', page))
    same = {"FlaxWhisperPipeline", "__version__"}  # the former is another name of Pipeline
    assert set(flax_distil.__all__) - same - shown == set()


def test_sections_of_docstrings_are_rendered(site):
    page = read(site / "reference" / "python" / "index.html")
    assert "Raises:" in page
    assert "<p>Args:" not in page
    configurations = read(site / "reference" / "configurations" / "index.html")
    assert "<p>Attributes:" not in configurations
    assert ":meth:" not in page + configurations


def test_every_page_is_in_the_navigation(site):
    shown = read(site / "security" / "index.html")
    pages = {str(page.parent.relative_to(site)) for page in site.rglob("index.html")} - {".", "security"}
    assert {page for page in pages if f'href="../{page}/"' not in shown} == set()


def test_nothing_is_loaded_from_other_hosts(site):
    loads = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]*"')
    found = [match for page in site.rglob("*.html") for match in loads.findall(read(page))]
    assert [match for match in found if 'rel="canonical"' not in match] == []
    styles = [read(style) for style in site.rglob("*.css")]
    assert not any(re.search(r"url\((?:https?:)?//", style) for style in styles)


def test_every_page_has_one_title(site):
    for page in site.rglob("*.html"):
        assert len(re.findall(r"<h1[ >]", read(page))) == 1, page


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder on this machine, and give its address and the paths that were asked for in vain."""
    missing: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            if code == http.HTTPStatus.NOT_FOUND:
                missing.append(self.path)

        def log_message(self, format: str, *arguments: object) -> None:
            """Write nothing."""

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", missing
        server.shutdown()


@pytest.mark.slow  # two seconds a page
@needs_chromium
def test_chromium_finds_every_file_of_every_page_and_no_error(site, tmp_path):
    with served(site) as (address, missing):
        for page in sorted(site.rglob("index.html")):
            shown, messages = open_page(f"{address}/{page.relative_to(site)}", tmp_path)
            assert "<h1" in shown
            assert messages == [], page
    assert missing == []


@pytest.mark.slow
@needs_chromium
def test_what_is_wrong_with_a_page_would_be_seen(tmp_path):
    (tmp_path / "site").mkdir()
    wrong = (
        '<!doctype html><link rel="icon" href="data:,"><script>throw new Error()</script><img src="no.png">'
    )
    (tmp_path / "site" / "index.html").write_text(wrong, encoding="utf-8")
    with served(tmp_path / "site") as (address, missing):
        _, messages = open_page(address, tmp_path / "profile")
    assert "Uncaught Error" in messages[0]
    assert missing == ["/no.png"]
