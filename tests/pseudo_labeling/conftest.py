"""Fixtures of the data room that labelling uses too."""

from tests.data.conftest import corpus_rows, flac_rows, flawed, speech

__all__ = ["corpus_rows", "flac_rows", "flawed", "speech"]
