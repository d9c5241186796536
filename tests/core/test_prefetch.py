"""Work is started ahead of what waits for it."""

from flax_distil.core.prefetch import one_ahead


def test_the_next_item_is_taken_before_one_is_given():
    events = []

    def started():
        for number in range(3):
            events.append(f"start {number}")
            yield number

    for number in one_ahead(started()):
        events.append(f"wait {number}")
    assert events == ["start 0", "start 1", "wait 0", "start 2", "wait 1", "wait 2"]


def test_nothing_and_items_that_are_none_pass():
    assert list(one_ahead([])) == []
    assert list(one_ahead([None, 0, None])) == [None, 0, None]
