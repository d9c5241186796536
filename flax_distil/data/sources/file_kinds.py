"""Kinds of files, which are known by their suffixes."""

import posixpath

from flax_distil.storage.retries import strip_query

AUDIO_SUFFIXES = frozenset(
    ".aac .aif .aiff .flac .g722 .m4a .mka .mp3 .mp4 .oga .ogg .opus .wav .webm .wma".split()  # noqa: SIM905
)
"""Suffixes of the recordings that are searched for in a folder; decoding does not depend on them."""

MANIFEST_SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".tsv"})

SHARD_SUFFIXES = (".parquet", ".arrow", ".tar")

ROW_SUFFIXES = MANIFEST_SUFFIXES | frozenset(SHARD_SUFFIXES)
"""Suffixes of files that are data sets."""

KINDS = (
    "a Hub id, a folder written by save_to_disk, a folder of audio files, "
    "Parquet, Arrow or tar files or a JSONL or CSV file of paths"
)
"""Everything that can be opened as a data set, for messages."""


def suffix_of(path: str) -> str:
    """Return the suffix of a path or address without its query, in lower case, such as ``.flac``."""
    return posixpath.splitext(strip_query(path))[1].lower()
