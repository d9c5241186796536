"""Checkpoints in both frameworks, and the held-out recordings."""

import pytest

from tests.parity.reference import Pair, Recordings


@pytest.fixture(scope="session")
def tiny_en(tiny_en_dir) -> Pair:
    return Pair.open(tiny_en_dir)


@pytest.fixture(scope="session")
def base(base_dir) -> Pair:
    return Pair.open(base_dir)


@pytest.fixture(scope="session")
def held_out(prompts_dir) -> Recordings:
    return Recordings.read(prompts_dir / "validation")


@pytest.fixture(scope="session")
def some_held_out(held_out) -> Recordings:
    return held_out.of_all_lengths(8)
