"""The record of skipped samples: complete, without doubles, readable."""

from concurrent.futures import ThreadPoolExecutor

from flax_distil.data import SkippedSamples


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
