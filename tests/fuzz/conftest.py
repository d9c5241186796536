"""Attempts of a test: no noise, no address."""

import pytest

from tests.fuzz.attempts import Attempts


@pytest.fixture
def attempts(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(capfd, monkeypatch)
