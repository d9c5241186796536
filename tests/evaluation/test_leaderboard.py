"""Under the Open ASR Leaderboard's protocol: its sets, its options, its manifests, its means."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.job import run
from flax_distil.evaluation.leaderboard.decoding import leaderboard_options
from flax_distil.evaluation.leaderboard.eval_results import eval_results
from flax_distil.evaluation.leaderboard.open_sets import open_set
from flax_distil.evaluation.leaderboard.scorer import run_scorer
from flax_distil.evaluation.leaderboard.sets import GROUPS, SETS, find_sets, mean_rate
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.logits_processors import logits_processors_for
from flax_distil.transcription.options import TranscriptionOptions

CHUNKED = "earnings22_cleaned_aa_chunked"


@pytest.fixture(scope="module")
def copies(prompts_dir, tmp_path_factory) -> Path:
    """Recorded prompts in the layout in which the Hub has two of the sets."""
    folder, source = tmp_path_factory.mktemp("sets"), prompts_dir / "validation"
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()[:4]]
    audio = [(source / row["file_name"]).read_bytes() for row in rows]
    texts = [*(row["text"] for row in rows[:3]), "Uh, hmm."]
    ami = folder / "open-asr-leaderboard" / "ami_cleaned"
    ami.mkdir(parents=True)
    table = {
        "audio": [{"bytes": part, "path": None} for part in audio],
        "text": texts,
        "id": [f"AMI/{i}" for i in range(4)],
    }
    pq.write_table(pa.table(table), ami / "test-00000-of-00001.parquet")
    chunks = folder / "Earnings22-Cleaned-AA-chunked"
    (chunks / "audio").mkdir(parents=True)
    lines = []
    for row, part in enumerate(audio[:3]):
        (chunks / "audio" / f"{row}.ogg").write_bytes(part)
        lines.append({"file_name": f"{row}.ogg", "parent_id": "ab"[row % 2], "chunk_index": row // 2})
    (chunks / "test.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in reversed(lines)))
    calls = folder / "Earnings22-Cleaned-AA"
    calls.mkdir()
    whole = {"id": ["a", "b"], "transcript": [f"{texts[0]} {texts[2]}", texts[1]]}
    pq.write_table(pa.table(whole), calls / "test-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def evaluated(teacher, copies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaderboard") / "report"
    settings = {
        "model_name_or_path": str(teacher), "protocol": "open_asr_leaderboard",
        "dataset_name": f"ami_cleaned+{CHUNKED}", "leaderboard_data_dir": str(copies),
        "per_device_eval_batch_size": 2, "generation_max_length": 4, "output_dir": str(folder),
    }  # fmt: skip
    return folder, run(build(EvalConfig, **settings))


def manifest(folder: Path, name: str) -> list[dict]:
    path = folder / "open_asr_leaderboard" / "local-toy.en" / SETS[name].manifest_name("local-toy.en")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_manifests_hold_raw_texts_times_and_chunks_and_no_row_in_which_nothing_is_said(evaluated):
    folder, results = evaluated
    rows = manifest(folder, "ami_cleaned")
    assert [row["audio_filepath"] for row in rows] == ["0", "1", "2"]
    assert list(rows[0]) == ["audio_filepath", "duration", "time", "text", "pred_text"]
    assert rows[0]["time"] == rows[1]["time"] > 0  # one batch
    found = results["open_asr_leaderboard"]["toy.en"]["sets"]["ami_cleaned"]
    assert found["compute_seconds"] == pytest.approx(sum(row["time"] for row in rows))
    assert found["rtfx"] == pytest.approx(sum(row["duration"] for row in rows) / found["compute_seconds"])
    chunks = manifest(folder, CHUNKED)
    assert {(row["parent_id"], row["chunk_index"]) for row in chunks} == {("a", 0), ("a", 1), ("b", 0)}


def test_chunks_are_scored_as_the_recordings_that_they_are_parts_of(evaluated):
    folder, results = evaluated
    by_call: dict[str, list[str]] = {}
    for row in sorted(manifest(folder, CHUNKED), key=lambda row: row["chunk_index"]):
        by_call.setdefault(row["parent_id"], []).append(row["pred_text"].strip())
    predictions = (folder / "predictions.csv").read_text(encoding="utf-8")
    assert " ".join(by_call["a"]) in predictions
    figures = results["open_asr_leaderboard"]["toy.en"]["sets"][CHUNKED]
    assert figures["samples"] == results["models"]["toy.en"]["data_sets"][CHUNKED]["clean"]["samples"] == 2
    assert results["open_asr_leaderboard"]["toy.en"]["groups"]["short_form"]["incomplete"] == [
        name for name in GROUPS["short_form"] if name not in ("ami_cleaned", CHUNKED)
    ]


def test_the_file_for_the_hub_is_read_by_its_library_and_has_no_mean_of_some_sets(evaluated):
    folder, results = evaluated
    path = folder / "open_asr_leaderboard" / "local-toy.en" / ".eval_results" / "open_asr_leaderboard.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert {entry.dataset_id for entry in entries} == {"hf-audio/open-asr-leaderboard"}
    sets = results["open_asr_leaderboard"]["toy.en"]["sets"]
    assert {entry.task_id: entry.value for entry in entries} == {
        "ami_wer": round(sets["ami_cleaned"]["wer"], 2), "earnings22_wer": round(sets[CHUNKED]["wer"], 2),
    }  # fmt: skip


def test_the_mean_is_over_sets_and_stands_in_the_file_once_all_were_measured():
    sets = {name: {"wer": float(number)} for number, name in enumerate(GROUPS["short_form"])}
    group = {"mean_wer": mean_rate({name: found["wer"] for name, found in sets.items()}), "rtfx": 12.345}
    figures = {"sets": sets, "groups": {"short_form": group | {"incomplete": []}}}
    entries = parse_eval_result_entries(
        yaml.safe_load(eval_results(figures, source_url="https://hf.co/a/b") or "")
    )
    assert {entry.task_id: entry.value for entry in entries} == {
        "mean_wer": 3.0, "rtfx": 12.35, "ami_wer": 0.0, "earnings22_wer": 1.0, "gigaspeech_wer": 2.0,
        "librispeech_clean_wer": 3.0, "librispeech_other_wer": 4.0, "spgispeech_wer": 5.0,
        "voxpopuli_wer": 6.0,
    }  # fmt: skip


def test_a_set_measured_in_part_is_not_in_the_file():
    sets = {"ami_cleaned": {"wer": 1.0}, "spgispeech": {"wer": 2.0}}
    group = {"mean_wer": 1.5, "rtfx": 1.0, "incomplete": ["ami_cleaned"]}
    text = eval_results({"sets": sets, "groups": {"short_form": group}}, source_url=None) or ""
    assert [entry["dataset"]["task_id"] for entry in yaml.safe_load(text)] == ["spgispeech_wer"]


def test_parts_of_coraal_count_as_one_column_of_the_mean():
    rates = {"earnings21_long_form": 10.0, "coraal_ATL": 20.0, "coraal_DCA": 40.0}
    assert mean_rate(rates) == 20.0


def test_sets_are_found_by_name_or_group_and_others_are_refused():
    assert [found.name for found in find_sets("spgispeech+short_form")] == [
        "spgispeech", *(name for name in GROUPS["short_form"] if name != "spgispeech"),
    ]  # fmt: skip
    assert (len(GROUPS["long_form"]), len(GROUPS["multilingual"])) == (10, 13)
    with pytest.raises(InputError, match=r"'ami_clean' is no set .* did you mean ami_cleaned"):
        find_sets("ami_clean")


def test_decoding_is_greedy_in_the_language_of_the_set_with_every_token_allowed(tiny_en_dir):
    options = leaderboard_options(TranscriptionOptions(max_new_tokens=7), language="de", is_long=True)
    assert (options.language, options.temperatures, options.max_new_tokens) == ("de", (0.0,), 7)
    assert options.return_timestamps
    assert set(options.thresholds) == {None}
    settings = GenerationSettings(
        suppress_tokens=(1, 2), begin_suppress_tokens=(220, 50256), is_multilingual=False
    )
    special = WhisperTokenizer.from_pretrained(tiny_en_dir).special
    allowed: LogitsProcessors = logits_processors_for(options, settings, special, positions=1500)
    assert allowed.begin_suppress_tokens == ()
    assert not {1, 2} & set(allowed.suppress_tokens)
    with pytest.raises(InputError, match="temperature is given"):
        leaderboard_options(TranscriptionOptions(temperature=(0.2,)), language="en")


def test_a_copy_without_the_set_is_named(copies):
    spec = DatasetSpec(name="spgispeech")
    with pytest.raises(InputError, match=r"no Parquet files of set 'spgispeech'.*spgispeech/test-\*"):
        open_set(SETS["spgispeech"], spec, data_dir=str(copies))


def write_scorer(folder: Path, body: str) -> Path:
    (folder / "normalizer").mkdir()
    (folder / "normalizer" / "eval_utils.py").write_text(body)
    return folder


def test_the_scorer_gets_the_manifests_of_a_language_and_its_rates_come_back(tmp_path):
    body = (
        "import pathlib\n"
        "def score_results(folder, multilingual, language, csv_only):\n"
        "    assert (multilingual, language) == (True, 'fr')\n"
        "    (path,) = pathlib.Path(folder).glob('*.jsonl')\n"
        "    name = path.stem.partition('DATASET_')[2]\n"
        "    return None, {f'm | {name}': {'wer': len(path.read_text().splitlines()) / 8}}\n"
    )
    file = SETS["mls_fr"].manifest_name("a-b")
    folder = write_scorer(tmp_path, body)
    assert run_scorer(str(folder), {file: ["{}", "{}"]}, language="fr") == {file: 0.25}


def test_what_the_scorer_lacks_is_told(tmp_path):
    folder = write_scorer(tmp_path, "import a_package_that_is_not_there\n")
    with pytest.raises(InputError, match=r"failed .*a_package_that_is_not_there"):
        run_scorer(str(folder), {}, language="en")
