"""Figures of recordings made up so that they can be told by hand."""

import numpy as np
import pytest

from flax_distil.core.nested import build
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.records import LatencySample, Prediction, Records, Session
from flax_distil.evaluation.results import Evaluation, make_results
from flax_distil.evaluation.scores import Resampled, ScoredRecords, compute_scores
from flax_distil.text.normalizers import get_normalizer

SESSION = Session(number=1, process=0, devices="1 x cpu", batch_size=4, compile_seconds=3.0)


def prediction(index: int, reference: str, text: str, **changes) -> Prediction:
    values = {
        "index": index, "id": f"r{index}", "reference": reference, "duration": 2.0, "text": text,
        "language": "en", "tokens": 5, "avg_logprob": -0.2, "no_speech_prob": 0.1, "session": 1, "process": 0,
        "seconds": 0.5 * (index + 1),
    }  # fmt: skip
    return Prediction(**values | changes)


def unit(*pairs: tuple[str, str], lines=(SESSION,)) -> ScoredRecords:
    predictions = [prediction(index, *pair) for index, pair in enumerate(pairs)]
    return ScoredRecords(Records([*lines, *predictions]), get_normalizer("en"))


RIGHT = unit(("one cat", "one cat"), ("a b c d e f", "a b c d e f"), ("so so so", "so so so"))
WRONG = unit(
    ("one cat", "one dog"), ("a b c d e f", "a b c"), ("so so so", "so so so and so and so and so and")
)  # fmt: skip
OTHER = unit(("yes", "no"), ("...", "nothing was said"))


def test_rates_are_of_all_words():
    figures = compute_scores([WRONG])
    assert figures["reference_words"] == 11
    assert figures["substitution_rate"] == pytest.approx(100 / 11)
    assert figures["deletion_rate"] == pytest.approx(300 / 11)
    assert figures["insertion_rate"] == pytest.approx(700 / 11)
    assert figures["wer"] == pytest.approx(1100 / 11)
    assert figures["repeated_5grams"] == pytest.approx(2 / 3)  # "so and so and so" comes three times


def test_references_of_nothing_are_counted_and_left_out():
    figures = compute_scores([OTHER])
    assert (figures["samples"], figures["empty_references"], figures["wer"]) == (2, 1, 100.0)


def test_speed_is_that_of_all_sessions_and_processes_work_at_the_same_time():
    late = Session(number=2, process=0, devices="1 x cpu", batch_size=4, compile_seconds=2.0)
    beside = Session(number=2, process=1, devices="1 x cpu", batch_size=4, compile_seconds=5.0)
    lines = [SESSION, late, beside, prediction(0, "a", "a", seconds=4.0), prediction(1, "b", "b", session=2),
             prediction(2, "c", "c", session=2, process=1, seconds=3.0)]  # fmt: skip
    found = Records(lines).throughput()
    assert (found.audio_seconds, found.compute_seconds, found.compile_seconds) == (6.0, 7.0, 8.0)
    assert (found.tokens, found.samples) == (15, 3)


def evaluated() -> dict:
    units = {("a", "x", "clean"): RIGHT, ("a", "y", "clean"): OTHER, ("b", "x", "clean"): WRONG,
             ("b", "y", "clean"): OTHER}  # fmt: skip
    latency = {
        model: Records([
            LatencySample(
                id=str(n), duration=4.0, seconds=seconds, encoder_seconds=0.25, tokens=10, devices="1 x cpu"
            )
            for n, seconds in enumerate(times)
        ])
        for model, times in {"a": (1.0, 2.0, 9.0), "b": (0.5, 0.5, 0.5)}.items()
    }  # fmt: skip
    return make_results(Evaluation(
        config=build(EvalConfig, model_name_or_path="a+b", dataset_name="x+y"),
        normalize=get_normalizer("en"),
        parameters={"a": 10, "b": 5}, data_sets=["x", "y"], units=units, latency=latency,
    ))  # fmt: skip


def test_micro_averages_weigh_words_and_macro_averages_data_sets():
    totals = {model: entry["total"]["clean"] for model, entry in evaluated()["models"].items()}
    assert totals["a"]["wer"] == pytest.approx(100 / 12)
    assert totals["a"]["macro_wer"] == pytest.approx(50)
    assert totals["b"]["wer"] == pytest.approx(100)
    for total in totals.values():
        for name in ("wer", "macro_wer"):
            low, high = total[f"{name}_interval"]
            assert low <= total[name] <= high


def test_comparisons_are_of_each_data_set_and_all_together():
    lines = {line["data_set"]: line for line in evaluated()["comparisons"]}
    assert list(lines) == [None, "x", "y"]
    assert {(line["model"], line["baseline"]) for line in lines.values()} == {("b", "a")}
    assert lines["x"]["difference"] == pytest.approx(1100 / 11)
    assert lines[None]["difference"] == pytest.approx(1100 / 12)
    assert lines[None]["recordings"] == 4
    figures = ("difference", "p_bootstrap", "p_matched_pairs")
    assert [lines["y"][name] for name in figures] == [0, 1, None]


def test_latency_is_the_median_and_relative_to_the_baseline():
    speeds = {model: entry["speed"] for model, entry in evaluated()["models"].items()}
    assert speeds["a"]["latency"]["median_seconds"] == 2.0
    assert speeds["b"]["latency"]["relative_latency"] == 4.0
    assert speeds["a"]["latency"]["relative_latency"] == speeds["a"]["relative_rtfx"] == 1.0
    assert speeds["a"]["latency"]["p90_seconds"] == pytest.approx(7.6)
    assert speeds["b"]["latency"]["median_decoder_seconds"] == 0.25
    assert speeds["b"]["latency"]["relative_decoder_latency"] == 7.0


def test_only_recordings_of_both_models_are_compared():
    fewer = ScoredRecords(Records(WRONG.records.lines[:3]), get_normalizer("en"))
    found = Resampled({"x": {"a": RIGHT, "b": fewer}}, seed=0).comparison("b", "a")
    assert found["recordings"] == 2
    assert found["difference"] == pytest.approx(100 * 4 / 8)


def test_intervals_do_not_depend_on_the_other_models():
    alone = Resampled({"x": {"b": WRONG}}, seed=3).interval("b")
    beside = Resampled({"x": {"a": RIGHT, "b": WRONG}}, seed=3).interval("b")
    assert alone == beside
    assert np.diff(alone)[0] > 0


def test_without_references_there_is_no_rate():
    silent = unit(("", "something"))
    found = Resampled({"x": {"a": silent, "b": silent}}, seed=0)
    assert found.interval("a") is None
    assert found.comparison("b", "a")["p_bootstrap"] is None
    assert compute_scores([silent])["wer"] is None


def test_characters_count_where_there_are_no_spaces_in_orthographic_rates_too():
    lines = [SESSION, prediction(0, "你好，世界。", "你号，世界", language="zh")]
    figures = compute_scores([ScoredRecords(Records(lines), get_normalizer("zh"))])
    # Of 你 好 ， 世 界 。 one is wrong and one is missing.
    assert figures["wer_ortho"] == figures["cer_ortho"] == pytest.approx(200 / 6)
    detected = compute_scores([ScoredRecords(Records(lines), get_normalizer(None))])
    assert detected["wer_ortho"] == pytest.approx(200 / 6)


def test_orthographic_characters_are_counted_with_casing_and_marks():
    figures = compute_scores([unit(("Yes, so.", "yes so."))])
    assert figures["cer"] == 0
    assert figures["cer_ortho"] == pytest.approx(200 / 7)
