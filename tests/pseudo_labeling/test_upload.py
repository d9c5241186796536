"""Splits that are uploaded one by one stand beside each other, and the card names all of them."""

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from huggingface_hub import DatasetCard

from flax_distil.checkpoints.hub.config import HubConfig
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.dataset_card import make_card
from flax_distil.pseudo_labeling.merge_cards import merge_cards
from flax_distil.pseudo_labeling.splits import SplitName
from flax_distil.pseudo_labeling.upload import upload_labels
from tests.checkpoints.hub_server import TOKEN, Hub

# huggingface_hub's own call of httpx, in the upload without Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "datasets/someone/labels"
CONFIG = build(
    PseudoLabelConfig, model_name_or_path="teacher", dataset_name="corpus", language="en", output_dir="out"
)


def summary_of(rows: int) -> dict:
    return {"labelled": rows, "bytes": 100 * rows, "wer": None, "audio_seconds": 3600.0, "skipped": {}}


def write_labels(folder: Path, parts: dict[SplitName, list[int]]) -> Path:
    """Write what a run leaves: for each part files of so many rows."""
    files = []
    for part, sizes in parts.items():
        for number, rows in enumerate(sizes):
            name = f"data/{part}-{number:05d}.parquet"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            table = pyarrow.table({"text": [f"{part} {number} {row}" for row in range(rows)]})
            pyarrow.parquet.write_table(table, folder / name)
            files.append({"part": str(part), "file": name})
    counts = {part: summary_of(sum(sizes)) for part, sizes in parts.items()}
    splits = {str(part): {**found, **vars(part)} for part, found in counts.items()}
    documents = {
        "index.json": {"settings": {}, "files": files},
        "summary.json": {"splits": splits},
        "throughput.json": {},
    }  # fmt: skip
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    (folder / "README.md").write_text(make_card(CONFIG, "corpus", counts))
    return folder


def downloaded(hub: Hub, folder: Path) -> Path:
    for name in hub.commit(REPO, "main").files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(hub.file(REPO, name))
    return folder


def push(folder: Path) -> str | None:
    return upload_labels(folder, "someone/labels", HubConfig(push_to_hub=True, hub_token=TOKEN))


def test_splits_and_configurations_of_other_uploads_stay(hub: Hub, tmp_path: Path):
    train, validation, french = SplitName(), SplitName(split="validation"), SplitName(config="fr")
    uploads = [{train: [2, 2]}, {validation: [3]}, {french: [1], validation: [2]}, {train: [5]}]
    for number, parts in enumerate(uploads):
        assert push(write_labels(tmp_path / str(number), parts)) is None
    assert hub.commit(REPO, "main").files.keys() == {
        "README.md", "data/train-00000.parquet", "data/validation-00000.parquet",
        "data/fr/train-00000.parquet", "labelling/train.json", "labelling/validation.json",
        "labelling/fr/train.json",
    }  # fmt: skip
    copy = downloaded(hub, tmp_path / "copy")
    for config, sizes in {"default": {"train": 5, "validation": 2}, "fr": {"train": 1}}.items():
        found = datasets.load_dataset(str(copy), config, cache_dir=str(tmp_path / "cache"))
        assert {split: len(rows) for split, rows in found.items()} == sizes
    card = (copy / "README.md").read_text()
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## train", "## validation", "## fr/train",
    ]  # fmt: skip
    assert "| recordings | 5 |" in card
    assert "| recordings | 4 |" not in card
    record = json.loads((copy / "labelling" / "train.json").read_text())
    assert [file["file"] for file in record["files"]] == ["data/train-00000.parquet"]


def test_an_upload_that_met_another_one_is_made_on_top_of_it(hub: Hub, tmp_path: Path, monkeypatch):
    first, second = (
        write_labels(tmp_path / split, {SplitName(split=split): [1]}) for split in ("train", "test")
    )
    merge, met = merge_cards, []

    def merge_after_another(theirs, ours):
        if not met:
            met.append(True)
            assert push(first) is None
        return merge(theirs, ours)

    monkeypatch.setattr("flax_distil.pseudo_labeling.upload.merge_cards", merge_after_another)
    assert push(second) is None
    files = hub.commit(REPO, "main").files
    assert {"data/train-00000.parquet", "data/test-00000.parquet"} < files.keys()
    assert hub.file(REPO, "README.md").decode().count("\n## ") == 2


def test_files_of_somebody_else_are_neither_mixed_in_nor_deleted(hub: Hub, tmp_path: Path, caplog):
    from huggingface_hub import HfApi

    api = HfApi(token=TOKEN)
    api.create_repo("someone/labels", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=b"PAR1", path_in_repo="data/train-00000-of-00001.parquet", repo_id="someone/labels",
        repo_type="dataset",
    )  # fmt: skip
    before = hub.commit(REPO, "main").files
    error = push(write_labels(tmp_path / "labels", {SplitName(): [1]}))
    assert error is not None
    assert "holds 'data/train-00000-of-00001.parquet', which pseudo-labelling did not write" in error
    assert hub.commit(REPO, "main").files == before


def test_what_others_wrote_into_a_card_stays():
    ours = make_card(CONFIG, "corpus", {SplitName(split="test"): summary_of(7)})
    theirs = """---
license: cc-by-4.0
tags: speech
configs:
- config_name: default
  default: true
  data_files: raw/*.parquet
---
# Calls

Recorded in 2020.

## Licence

Be kind.
"""
    merged = merge_cards(theirs, ours)
    _, head, text = merged.split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["tags"] == ["speech", "pseudo-labels", "whisper", "flax-distil"]
    assert metadata["configs"] == [
        {
            "config_name": "default", "default": True,
            "data_files": [
                {"split": "train", "path": "raw/*.parquet"}, {"split": "test", "path": "data/test-*.parquet"}
            ],
        }
    ]  # fmt: skip
    assert text.startswith("\n# Calls\n\nRecorded in 2020.\n\n## Licence\n\nBe kind.\n\n## test\n")
    assert merge_cards(merged, ours) == merged
    assert merge_cards(None, ours) == ours


HOSTILE = "a|b\n# <script>x</script> [c](http://d) `e` https://me:canary123@h/?sig=canary123\n---\nlicense: x"


def test_names_stay_text_in_a_card():
    config = build(PseudoLabelConfig, model_name_or_path=HOSTILE, dataset_name="corpus", output_dir="out")
    card = make_card(config, HOSTILE, {SplitName(): summary_of(1)})
    head, _, text = card.removeprefix("---\n").partition("\n---\n")
    assert "license" not in yaml.safe_load(head)
    assert "canary" not in card
    shown = r"a\|b # \<script\>x\</script\> \[c\](http://d) \`e\` https://\*\*\*@h/?\*\*\* --- license: x"
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("#")] == [f"# {shown}, labelled by {shown}", "## train"]
    assert f"| teacher | {shown} |" in lines


NO_CARDS = (
    "configs: [", "configs: x", "configs: [1]", "dataset_info: 3", "a: !!python/object:os.system x",
    "a: \x00", "? [a]\n: b\nconfigs:\n- 7",
)  # fmt: skip


@pytest.mark.parametrize("metadata", NO_CARDS)
def test_a_card_of_others_that_is_no_card_is_refused_in_one_sentence(metadata):
    ours = make_card(CONFIG, "c", {SplitName(): summary_of(1)})
    with pytest.raises(InputError, match="card of the repository"):
        merge_cards(f"---\n{metadata}\n---\ntext", ours)


POOR_CARDS = (
    "", "[1, 2]", "tags: {a: b}", "configs:\n- data_files: x\n- {}",
    "configs:\n- config_name: [1]\n  data_files: [{}]", "dataset_info:\n  splits: 7",
    "dataset_info:\n- splits: [1, {name: [2]}]",
)  # fmt: skip


@pytest.mark.parametrize("metadata", POOR_CARDS)
def test_a_card_of_others_with_gaps_is_kept(metadata):
    merged = merge_cards(f"---\n{metadata}\n---\ntext", make_card(CONFIG, "c", {SplitName(): summary_of(1)}))
    assert "text" in merged
    assert "split: train" in merged


def test_the_hub_reads_the_metadata_of_a_card_and_people_what_was_done(tmp_path: Path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    config = build(
        PseudoLabelConfig, model_name_or_path="large-v3", dataset_name=str(tmp_path / "corpus"),
        language="german", output_dir="out", max_duration_in_seconds=20.0, return_timestamps=True,
    )  # fmt: skip
    summary = summary_of(1200) | {"wer": 8.5, "skipped": {"without speech": 3}}
    card = DatasetCard(make_card(config, "corpus", {SplitName(): summary}))
    assert (card.data.language, card.data.license) == (["de"], "cc-by-4.0")
    assert card.data.task_categories == ["automatic-speech-recognition"]
    assert card.data.annotations_creators == ["machine-generated"]
    assert card.data.size_categories == ["1K<n<10K"]
    assert card.data.pretty_name == "corpus, labelled by openai/whisper-large-v3"
    assert "corpus (license: cc-by-4.0)" in card.text
    for row in (
        "| teacher | [openai/whisper-large-v3](https://huggingface.co/openai/whisper-large-v3) |",
        "| hours | 1.00 |", "| labels with timestamps | yes |", "| WER against the references | 8.50 % |",
        "| recordings left out that are longer than | 20 s |",
        "| skipped samples of the source | 3 (3 without speech) |",
    ):  # fmt: skip
        assert row in card.text
    assert str(tmp_path) not in str(card)


def test_labels_arrive_although_requests_fail_and_an_upload_is_cut(hub: Hub, tmp_path: Path):
    hub.failing_share, hub.cut_uploads = 0.3, 1
    folder = write_labels(tmp_path, {SplitName(): [2, 2], SplitName(split="test"): [1]})
    assert push(folder) is None
    files = hub.commit(REPO, "main").files
    for path in folder.glob("data/*.parquet"):
        assert hub.file(REPO, f"data/{path.name}") == path.read_bytes()
    assert {"README.md", "labelling/train.json", "labelling/test.json"} < files.keys()
