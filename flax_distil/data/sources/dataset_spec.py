"""Specify which data sets to open and how; names of several data sets are joined by ``+``."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.data.sources.file_kinds import ROW_SUFFIXES, suffix_of
from flax_distil.storage.remote_files import has_pattern, is_remote
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy, strip_query


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Names of data sets, with their columns and options.

    Attributes:
        name: Hub id, ``save_to_disk`` folder, folder of audio files, JSONL or CSV file of paths, or
            Parquet, Arrow or tar files (WebDataset) by name, folder or pattern, ``{00..99}``
            included; or several of these joined by ``+``. Paths may be ``gs://``, ``s3://``,
            ``http(s)://`` and ``hf://`` addresses.
        config_name: Configuration; joined by ``+`` for several data sets.
        split: Split, which may be a slice unless it is streamed; joined by ``+`` for several. None takes the
            only split.
        audio_column: Column of recordings; joined by ``+`` for several.
        text_column: Column of reference texts; joined by ``+`` for several; None if there are none.
        label_column: Column of pseudo-labels; joined by ``+`` for several; None if there are none.
        speaker_column: Column of speakers; joined by ``+`` for several; None takes one of the usual names
            where it exists.
        max_samples: Maximum number of rows of each data set, of which the first ones are kept.
        cache_dir: Folder in which ``datasets`` keeps downloaded and converted files.
        policy: Policy for repeating failed requests.
        channel: Channel of the recordings to use, counted from 0; None for the mean of all channels.
        streaming: Whether to read from front to back, without keeping anything on disk.
    """

    name: str
    config_name: str | None = None
    split: str | None = None
    audio_column: str = "audio"
    text_column: str | None = None
    label_column: str | None = None
    speaker_column: str | None = None
    max_samples: int | None = None
    cache_dir: Path | str | None = None
    policy: RetryPolicy = DEFAULT_POLICY
    channel: int | None = None
    streaming: bool = False

    def parts(self) -> list["DatasetSpec"]:
        """Return one specification for each data set of ``a+b``, with its own split and columns.

        The other fields are joined by ``+`` as well: they have as many values as there are data sets, or one
        for all; an empty value means None. With a single data set, ``split="train+validation"`` names two of
        its splits. A path that exists as written is not split, and neither are braces. An address is split
        only after the name of a file, a pattern, or a folder with a slash at its end.

        Raises:
            InputError: If the number of values is not the number of data sets.
        """
        names = split_names(self.name)
        if not all(names):
            raise InputError(
                f"data set {self.name!r} has an empty name beside a '+': name one data set on each side"
            )

        def values(value: str | None, what: str) -> list[str | None]:
            return [part or None for part in split_values(value, what, self.name)]

        return [
            dataclasses.replace(
                self,
                name=name,
                config_name=config,
                split=split,
                audio_column=audio or "audio",
                text_column=text,
                label_column=label,
                speaker_column=speaker,
            )
            for name, config, split, audio, text, label, speaker in zip(
                names,
                values(self.config_name, "configurations"),
                values(self.split, "splits"),
                values(self.audio_column, "audio columns"),
                values(self.text_column, "text columns"),
                values(self.label_column, "label columns"),
                values(self.speaker_column, "speaker columns"),
                strict=True,
            )
        ]

    @property
    def local_files(self) -> str | None:
        """Folder of the only files of this machine that its rows may name, "" for none; None for any.

        Only a data set of this machine may name any: the rows of another's could name private recordings.
        """
        if is_remote(self.name):
            return ""
        if has_pattern(self.name) or user_path(self.name).exists():
            return None
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        cache = user_path(self.cache_dir or constants.HF_HUB_CACHE).absolute()
        return str(cache / repo_folder_name(repo_id=self.name, repo_type="dataset"))

    @property
    def short_name(self) -> str:
        """Name for messages and ids: stem of a file, name of a folder, or last part of a Hub id."""
        path = Path(strip_query(self.name).partition("://")[2] if is_remote(self.name) else self.name)
        if has_pattern(path.name):
            path = path.absolute().parent
        elif suffix_of(path.name) in ROW_SUFFIXES:
            return path.stem
        return path.name or path.absolute().name

    @property
    def id_prefix(self) -> str:
        """First part of the ids of rows that have no id."""
        return self.short_name + (f"/{self.split}" if self.split else "")


def split_values(value: str | None, what: str, name: str) -> list[str | None]:
    """Split ``x+y`` into one value for each data set of ``a+b``; a single value is used for all.

    Args:
        value: The values, joined by ``+``; None if they are not given.
        what: Name of the values in messages, in the plural.
        name: Names of the data sets, as in :attr:`DatasetSpec.name`.

    Raises:
        InputError: If the number of values is not the number of data sets.
    """
    count = len(split_names(name))
    values = [value] if value is None or count == 1 else [part.strip() for part in value.split("+")]
    if len(values) not in (1, count):
        raise InputError(
            f"{len(values)} {what} ({value}) for {count} data sets ({name}): "
            "give one for all, or as many as data sets"
        )
    return [*values] * (count if len(values) == 1 else 1)


def split_names(spec: str) -> list[str]:
    """Split a specification at each ``+`` that is not part of a name."""
    names: list[str] = []
    for part in re.split(r"\+(?![^{}]*\})", spec):
        if names and _belongs_to_name(names[-1], part):
            names[-1] += f"+{part}"
        else:
            names.append(part)
    return [spec] if _exists(spec) else [name.strip() for name in names]


def _belongs_to_name(name: str, part: str) -> bool:
    """Return whether a ``+`` and the text after it still belong to a name."""
    if not is_remote(name):
        return not _exists(name) and _exists(f"{name}+{part}")
    whole = has_pattern(name) or name.endswith("/") or suffix_of(name) in ROW_SUFFIXES
    return not whole and not is_remote(part)


def _exists(name: str) -> bool:
    return not is_remote(name) and user_path(name.strip()).exists()
