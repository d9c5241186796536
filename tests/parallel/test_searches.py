"""Beams, draws and fallback are those of one device under any layout, ragged batches included."""

import pytest

from tests.parallel.eight_devices import run_on_eight_devices
from tests.parallel.searches_on_eight_devices import IDLE, SEARCHED, SEARCHES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tiny_en_dir):
    return run_on_eight_devices("searches_on_eight_devices.py", tiny_en_dir)


@pytest.mark.parametrize("layout", SEARCHED)
@pytest.mark.parametrize("search", SEARCHES)
def test_tokens_are_those_of_one_device(found, search, layout):
    alone = found[search]["one"]
    assert found[search][layout] == alone
    said, idle = alone[:-IDLE], alone[-IDLE:]
    assert idle == [None] * IDLE
    assert len({tuple(tokens) for tokens in said}) == len(said)  # rows cannot be mistaken


@pytest.mark.parametrize("layout", SEARCHED)
def test_rows_that_fail_are_tried_again_wherever_they_lie(found, layout):
    alone = found["fallback"]["one"]
    assert found["fallback"][layout] == alone
    assert sorted(temperature for temperature, _ in alone) == [0.0] * 4 + [0.9] * 4
