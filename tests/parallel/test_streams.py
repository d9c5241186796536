"""Rows are filled at once under any layout, and windows say what they say in batches on one device."""

import pytest

from tests.parallel.eight_devices import run_on_eight_devices
from tests.parallel.streams_on_eight_devices import STREAMED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tiny_en_dir):
    return run_on_eight_devices("streams_on_eight_devices.py", tiny_en_dir)


@pytest.mark.parametrize("layout", ["one", *STREAMED])
@pytest.mark.parametrize("search", ["greedy", "samples", "assistant"])
def test_tokens_of_a_stream_are_those_of_batches_on_one_device(found, search, layout):
    alone = found[search]["one"]["whole"]
    assert found[search][layout]["stream"] == alone
    assert {len(tokens) for batch in alone for tokens in batch if tokens is not None} >= {0, 1, 3, 5, 8}
    steps = found[search][layout]["row_steps"]
    assert 0 < steps["used"] <= steps["ran"]
