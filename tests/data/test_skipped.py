"""The record of skipped samples: complete, without doubles, readable."""

import json
from concurrent.futures import ThreadPoolExecutor

from flax_distil.data import skipped as skipped_module
from flax_distil.data.skipped import SkippedSamples


def add(skipped: SkippedSamples, index: int, kind: str = "with unreadable audio") -> None:
    skipped.add(index=index, sample_id=f"set:{index}", kind=kind, reason=f"cannot read {index}.wav")


def test_many_threads_lose_and_double_nothing():
    skipped = SkippedSamples()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: add(skipped, number % 500), range(4000)))
    assert [sample.index for sample in skipped.samples()] == list(range(500))


def test_the_same_id_in_two_data_sets_counts_twice():
    skipped = SkippedSamples()
    skipped.add(index=0, sample_id="a", kind="without audio", reason="")
    skipped.add(index=5, sample_id="a", kind="without audio", reason="")
    assert len(skipped) == 2


def test_the_report_counts_by_kind_and_lists_up_to_its_limit():
    skipped = SkippedSamples()
    assert skipped.report() == ""
    for index in range(3):
        add(skipped, index)
    add(skipped, 9, kind="without audio")
    assert skipped.report(limit=2).splitlines() == [
        "skipped 4 samples: 3 with unreadable audio, 1 without audio",
        "  set:0: cannot read 0.wav",
        "  set:1: cannot read 1.wav",
        "  and 2 more",
    ]


def test_the_same_row_of_another_data_set_counts_too():
    skipped = SkippedSamples()
    for name in ("talks", "news", "talks"):
        skipped.add(data_set=name, index=0, sample_id="0", kind="without audio", reason="")
    assert [sample.data_set for sample in skipped.samples()] == ["news", "talks"]
    skipped.add(data_set="talks", index=1, sample_id="1", kind="too long", reason="31 s")
    assert skipped.report(limit=0).splitlines() == [
        "skipped 3 samples: 2 without audio, 1 too long",
        "  of news: 1 without audio",
        "  of talks: 1 too long, 1 without audio",
        "  and 3 more",
    ]


def test_processes_and_earlier_parts_of_a_run_are_joined_without_doubles():
    first, second = SkippedSamples(), SkippedSamples()
    for index in range(3):
        add(first, index)
        add(second, index + 2)
    states = json.loads(json.dumps([first.get_state(), second.get_state()]))
    joined = SkippedSamples.merge(states)
    assert [sample.index for sample in joined.samples()] == [0, 1, 2, 3, 4]
    assert joined.counts() == {"with unreadable audio": 5}


def test_an_endless_stream_of_bad_samples_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr(skipped_module, "REMEMBERED_SAMPLES", 10)
    skipped = SkippedSamples()
    for _epoch in range(2):
        for index in range(12):
            add(skipped, index)
    assert len(skipped.samples()) == 10
    # The ten remembered count once; the two that are not, whenever they come.
    assert skipped.counts() == {"with unreadable audio": 14}
    assert len(skipped) == 14
    assert skipped.report(limit=1).splitlines()[-1] == "  and 13 more"
    joined = SkippedSamples.merge([skipped.get_state()])
    assert joined.report() == skipped.report()
