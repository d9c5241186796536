"""Read and check the tokenizer of a checkpoint of any format."""

import tempfile
from pathlib import Path

from flax_distil.checkpoints.formats.files import CheckpointFiles
from flax_distil.core.errors import InputError
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer


def read_tokenizer(files: CheckpointFiles) -> tuple[WhisperTokenizer, GenerationSettings]:
    """Return the tokenizer and generation settings of a checkpoint, whatever its format.

    Raises:
        InputError: If the checkpoint has no tokenizer, a file is damaged, or the tokenizer has tokens that
            the model does not have.
    """
    origin = files.origin
    with tempfile.TemporaryDirectory() as scratch:
        files.write(Path(scratch))
        tokenizer = WhisperTokenizer.from_pretrained(Path(scratch), origin=origin)
        settings = GenerationSettings.from_folder(Path(scratch), tokenizer.special, origin=origin)
    _check_vocabulary(tokenizer.special, files)
    return tokenizer, settings


def check_tokenizer(files: CheckpointFiles) -> None:
    """Check the tokenizer and generation settings of a checkpoint that will be written again, if it has any.

    Raises:
        InputError: If :func:`read_tokenizer` raises it; but a checkpoint without a tokenizer is accepted.
    """
    if has_tokenizer(files):
        read_tokenizer(files)


def has_tokenizer(files: CheckpointFiles) -> bool:
    """Return whether a checkpoint has the files of a tokenizer."""
    return any(name in files.tokenizer for name in ("tokenizer.json", "vocab.json"))


def _check_vocabulary(special: SpecialTokens, files: CheckpointFiles) -> None:
    """Check that the model has room for all tokens of its tokenizer.

    There are models without timestamps, and models with room after the last token; only a token without room
    is an error.
    """
    behind_timestamps = special.vocab_size > special.timestamp_end
    needed = special.vocab_size if behind_timestamps else special.timestamp_begin
    room = files.config["vocab_size"]
    if needed > room:
        raise InputError(
            f"the tokenizer of {files.origin} has the token {needed - 1}, but its config.json has "
            f"vocab_size {room}: the two do not belong together"
        )
