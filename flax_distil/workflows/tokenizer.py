"""The tokenizer of a checkpoint of any format."""

import tempfile
from pathlib import Path

from flax_distil.text import GenerationSettings, WhisperTokenizer
from flax_distil.weights import CheckpointFiles


def read_tokenizer(files: CheckpointFiles) -> tuple[WhisperTokenizer, GenerationSettings]:
    """Return the tokenizer and generation settings of a checkpoint, whatever its format."""
    with tempfile.TemporaryDirectory() as scratch:
        files.write(Path(scratch))
        tokenizer = WhisperTokenizer.from_pretrained(Path(scratch))
        return tokenizer, GenerationSettings.from_folder(Path(scratch), tokenizer.special)
