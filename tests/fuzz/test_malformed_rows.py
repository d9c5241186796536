"""Malformed rows of every format, read by the command that looks at training data."""

import functools
from pathlib import Path

import pytest

from flax_distil.cli.main import main
from tests.checkpoints.toy_folder import toy_files, write_files
from tests.data.malformed_rows import malformed_rows
from tests.fuzz.attempts import Attempts


def inspect_rows(attempts: Attempts, seed: int, count: int, scratch: Path) -> None:
    """Look at each data set as a table, and every other one as a stream too."""
    model = str(write_files(scratch / "model", toy_files()))
    flags = ["--model_name_or_path", model, "--language", "en", "--label_column_name", "whisper_transcript"]
    flags += ["--text_column_name", "text", "--wer_threshold", "50", "--num_shown_samples", "1"]
    flags += ["--source_retry_seconds", "1", "--dataset_cache_dir", str(scratch / "cache")]
    for source in malformed_rows(seed, count):
        line = ["data", "inspect", *flags, "--train_dataset_name", str(source.path)]
        name = f"{source.kind} {source.number}"
        attempts.run(f"rows: {source.kind}", name, functools.partial(main, line))
        if source.number % 2:
            stream = functools.partial(main, [*line, "--streaming"])
            attempts.run(f"rows of a stream: {source.kind}", f"{name} streamed", stream)


@pytest.mark.slow
def test_malformed_rows_are_left_out_or_refused_in_one_sentence(attempts, tmp_path):
    inspect_rows(attempts, 30, 90, tmp_path)
    attempts.check()
