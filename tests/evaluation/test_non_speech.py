"""Evaluations of toys on clips without speech: figures by kind and threshold, in every report."""

import csv
import json

import numpy as np
import pytest

from flax_distil.audio.non_speech.clips import KINDS, NonSpeechClip
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.decoded_example import SampleReader
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.gate import find_failures, parse_condition
from flax_distil.evaluation.job import run
from flax_distil.evaluation.non_speech.clip_set import (
    THRESHOLDS_OFF,
    THRESHOLDS_ON,
    make_clip_set,
    non_speech_options,
)
from flax_distil.evaluation.non_speech.figures import non_speech_results
from flax_distil.evaluation.records import Prediction, Records
from flax_distil.evaluation.scores import ScoredRecords
from flax_distil.text.normalizers import get_normalizer
from flax_distil.transcription.options import OFF, Thresholds
from tests.toys import write_prompts

CLIPS = 8


@pytest.fixture(scope="module")
def settings(teacher, prompts_dir, tmp_path_factory):
    prompts = write_prompts(tmp_path_factory.mktemp("speech"), prompts_dir)
    return {
        "model_name_or_path": str(teacher), "dataset_name": str(prompts), "max_samples": 2,
        "per_device_eval_batch_size": 4, "generation_max_length": 4,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(settings, one_partitioner, tmp_path_factory):
    """A folder of an evaluation with clips that follows one without."""
    folder = tmp_path_factory.mktemp("evaluation") / "report"
    output = {"output_dir": str(folder)}
    assert "non_speech" not in run(build(EvalConfig, **settings | output))["models"]["toy.en"]
    run(build(EvalConfig, **settings | output, non_speech=True, non_speech_samples=CLIPS))
    return folder


def prediction(index: int, text: str) -> Prediction:
    return Prediction(
        index=index, id=str(index), reference="", duration=10.0, text=text, language="en", tokens=1,
        avg_logprob=-0.5, no_speech_prob=0.1, session=1, process=0, seconds=1.0,
    )  # fmt: skip


def test_texts_words_and_repetitions_are_counted_by_kind():
    loop = "thank you for watching today " * 2
    lines = [prediction(0, " You"), prediction(1, ""), prediction(8, " ..."), prediction(9, loop)]
    unit = ScoredRecords(Records(lines), get_normalizer("en"))
    found = non_speech_results({THRESHOLDS_OFF: unit}, seed=0)["thresholds_off"]
    assert (found["with_text"], found["with_words"], found["samples"]) == (75.0, 50.0, 4)
    assert found["words_per_hour"] == pytest.approx(11 / 40 * 3600)
    assert found["repeated_5grams"] == 1 / 4
    assert found["kinds"]["silence"]["with_text"] == 100.0
    assert found["kinds"]["silence"]["with_words"] == 50.0
    assert found["kinds"]["white"]["words_per_hour"] == pytest.approx(10 / 20 * 3600)
    assert list(found["kinds"]) == ["silence", "white"]
    low, high = found["with_text_interval"]
    assert 0 <= low < 75 < high <= 100
    assert found["texts"] == {"You": 1, "...": 1, loop.strip(): 1}


def test_the_set_of_a_seed_is_the_same_for_every_model_and_in_every_run():
    reader = SampleReader(make_clip_set(CLIPS, seed=0))
    for number in range(CLIPS):
        clip, sample = NonSpeechClip.of(0, number), reader.read(number)
        assert (sample.sample_id, sample.duration_seconds) == (clip.name, pytest.approx(clip.seconds))
        np.testing.assert_allclose(sample.samples_W, clip.samples(), atol=1 / 32768)


def test_clips_are_decoded_without_and_with_thresholds(settings):
    config = build(EvalConfig, **settings, non_speech=True, no_speech_threshold=0.3, temperatures=(0.0, 0.5))
    off, on = (non_speech_options(config)[name] for name in (THRESHOLDS_OFF, THRESHOLDS_ON))
    assert off.thresholds == Thresholds(None, None, None, None)
    assert off.temperatures == (0.0,)
    assert (on.thresholds.no_speech, on.thresholds.logprob, on.temperatures) == (0.3, -1.0, (0.0, 0.5))
    assert off.logprob_threshold == OFF
    assert not non_speech_options(build(EvalConfig, **settings))


@pytest.mark.slow
def test_reports_have_the_clips_beside_the_speech(folder):
    results = json.loads((folder / "results.json").read_text())
    entry = results["models"]["toy.en"]
    assert list(entry["data_sets"]) == ["prompts"]  # clips count in no error rate
    assert list(entry["non_speech"]) == ["thresholds_off", "thresholds_on"]
    for figures in entry["non_speech"].values():
        assert (figures["samples"], figures["skipped"]) == (CLIPS, 0)
        assert list(figures["kinds"]) == list(KINDS)
    assert entry["non_speech"]["thresholds_off"]["with_text"] > 0  # a toy always says something
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    clips = [row["id"] for row in rows if row["dataset"] == THRESHOLDS_ON]
    assert clips == [NonSpeechClip.of(0, number).name for number in range(CLIPS)]
    assert "Without speech" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_fewer_clips_are_reported_without_transcribing_any_again(settings, folder):
    before = {path: path.read_bytes() for path in (folder / "predictions").rglob("*.jsonl")}
    changed = {"output_dir": str(folder), "non_speech": True, "non_speech_samples": 3}
    results = run(build(EvalConfig, **settings | changed))
    assert results["models"]["toy.en"]["non_speech"]["thresholds_on"]["samples"] == 3
    assert {path: path.read_bytes() for path in (folder / "predictions").rglob("*.jsonl")} == before


def test_a_model_that_writes_where_nobody_speaks_can_fail_an_evaluation():
    condition = [parse_condition("non_speech_with_text > 5")]

    def results(**entry):
        return {"models": {"m": {"total": {"clean": {}}, **entry}}}

    loud = results(non_speech={"thresholds_off": {"with_text": 44.0}})
    assert find_failures(condition, loud) == ["m: non_speech_with_text is 44, and fail_if says "
                                              "non_speech_with_text > 5"]  # fmt: skip
    assert not find_failures(condition, results(non_speech={"thresholds_off": {"with_text": 5.0}}))
    assert "is not known" in find_failures(condition, results())[0]


def test_the_protocol_of_the_leaderboard_has_no_such_clips(settings):
    changed = {"dataset_name": "librispeech_clean", "protocol": "open_asr_leaderboard", "non_speech": True}
    with pytest.raises(InputError, match="non_speech is given"):
        build(EvalConfig, **settings | changed)
