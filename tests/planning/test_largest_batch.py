"""The search for the largest batch is right, and says what it does not know."""

import pytest

from flax_distil.planning.largest_batch import Trial, find_largest_batch

LIMIT = 1000.0


def search(memory, start, *, compilations=100, tells=False):
    """Search with a function from batch to bytes; of what is too large a compiler may tell none."""
    seen = []

    def compile_batch(batch):
        seen.append(batch)
        used = memory(batch)
        return Trial(batch=batch, fits=used <= LIMIT, bytes=used if used <= LIMIT or tells else None)

    return find_largest_batch(
        compile_batch(start),
        limit=LIMIT,
        fixed=memory(0),
        compile_batch=compile_batch,
        may_compile=lambda: len(seen) < compilations,
    )


@pytest.mark.parametrize(
    "memory",
    [
        lambda batch: 100 + 11 * batch,
        lambda batch: 100 + 3 * batch,
        lambda batch: 300 + 5 * batch + batch**2 // 100,
        lambda batch: 10 + 40 * batch if batch < 20 else 400 + 4 * batch,
        lambda batch: 700 + 100 * batch,
    ],
)
@pytest.mark.parametrize("start", [1, 4, 64, 512])
@pytest.mark.parametrize("tells", [False, True])
def test_with_enough_compilations_the_largest_batch_is_found(memory, start, tells):
    found = search(memory, start, tells=tells)
    step = 1 if found.batch < 16 else 8
    assert found.is_compiled
    assert memory(found.batch) <= LIMIT
    # Where memory grows evenly nothing larger fits; where it does not, the search stops within two steps.
    assert memory(found.batch + 2 * step) > LIMIT
    assert len(found.trials) < 12


def test_two_compilations_interpolate():
    found = search(lambda batch: 100 + 3 * batch, 64, compilations=2)
    assert found.batch in (296, 300)
    assert len(found.trials) == 2


def test_one_compilation_is_extrapolated_from_what_no_batch_changes():
    found = search(lambda batch: 100 + 3 * batch, 64, compilations=1)
    assert not found.is_compiled
    assert found.batch == 296


def test_what_is_too_large_shows_the_way_back_if_the_compiler_tells_its_size():
    found = search(lambda batch: 100 + 3 * batch, 512, compilations=4, tells=True)
    assert [trial.batch for trial in found.trials] == [512, 256, 296]


def test_nothing_fits():
    found = search(lambda batch: 2000 + batch, 4)
    assert (found.batch, [trial.batch for trial in found.trials]) == (0, [4, 2, 1])
