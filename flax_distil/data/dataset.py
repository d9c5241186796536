"""A table of recordings and texts of any origin, whose columns are named by their roles."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flax_distil.core.arrays import Int
from flax_distil.core.errors import InputError
from flax_distil.data.example import Example
from flax_distil.data.fragments import split_fragment
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy

if TYPE_CHECKING:
    import datasets

PSEUDO_LABEL_COLUMN = "whisper_transcript"
"""The column that pseudo-labelling writes and distillation reads."""

DURATION_COLUMN = "duration"
"""Column of the seconds of audio of each row, where they are known without decoding."""

PREVIOUS_COLUMN = "condition_on_prev"
"""Column of the token ids of the text before a row, as Distil-Whisper's own pseudo-labelling writes them."""

ID_COLUMN = "id"
"""Column of the stable names of samples, which is added on loading where a source has none."""


@dataclass(frozen=True, kw_only=True)
class SpeechDataset:
    """A table of recordings with texts, whose audio is still encoded.

    Attributes:
        name: Short name for messages and reports.
        table: The rows. The audio column holds ``{"bytes", "path"}`` and is never decoded
            by ``datasets``, so torchcodec is not needed.
        audio_column: Column of recordings.
        text_column: Column of reference texts; None if there are none.
        label_column: Column of pseudo-labels; None if there are none.
        speaker_column: Column that identifies speakers; None if there is none.
        problems: Reasons why rows cannot be used, by row number.
        numbers: Number that each row had in ``origin`` before rows were left out; None if no row was left
            out.
        origin: Name of the data set or file that the rows were read from.
        first_row: Number of the first row in ``origin``.
        policy: Policy for repeating failed requests for a recording.
        channel: Channel of the recordings to decode, counted from 0; None for the mean of all channels.
    """

    name: str
    table: "datasets.Dataset"
    audio_column: str = "audio"
    text_column: str | None = None
    label_column: str | None = None
    speaker_column: str | None = None
    problems: Mapping[int, str] = dataclasses.field(default_factory=dict)
    numbers: Int[np.ndarray, " rows"] | None = None
    origin: str = ""
    first_row: int = 0
    policy: RetryPolicy = DEFAULT_POLICY
    channel: int | None = None

    def __len__(self) -> int:
        return len(self.table)

    def has_column(self, column: str) -> bool:
        """Return whether the table has this column."""
        return column in self.table.column_names

    @property
    def has_previous(self) -> bool:
        """Whether rows may have a previous text, from the same speaker or from a column of token ids."""
        return self.speaker_column is not None or self.has_column(PREVIOUS_COLUMN)

    def column(self, column: str) -> list[Any]:
        """Return the values of one column, in the order of the rows.

        Raises:
            InputError: If there is no such column.
        """
        require_columns(self.table, [column], name=self.name)
        return list(self.table[column])

    def ids(self) -> list[str]:
        """Return the stable name of every row."""
        return [str(value) for value in self.column(ID_COLUMN)]

    def references(self) -> list[str | None]:
        """Return the reference text of every row; None where it is missing."""
        return self._texts(self.text_column)

    def labels(self) -> list[str | None]:
        """Return the text to train on for every row: the pseudo-label, or else the reference."""
        return self._texts(self.label_column or self.text_column)

    def _texts(self, column: str | None) -> list[str | None]:
        if column is None:
            return [None] * len(self)
        return [None if value is None else str(value) for value in self.column(column)]

    def durations(self) -> list[float | None]:
        """Return the seconds of audio of every row; None where decoding is needed to know them."""
        if not self.has_column(DURATION_COLUMN):
            return [None] * len(self)
        return [None if value is None else float(value) for value in self.column(DURATION_COLUMN)]

    def row(self, index: int) -> Example:
        """Return one row with its encoded audio."""
        return self._row(index, self.table[index])

    def rows(self) -> list[Example]:
        """Return all rows with their encoded audio, which suits small tables only."""
        return [self._row(index, values) for index, values in enumerate(self.table.to_list())]

    def rows_without_audio(self) -> Iterator[Example]:
        """Yield every row, in order, without reading its audio."""
        return (self._row(index, values) for index, values in enumerate(self.without_audio().table))

    def without_audio(self) -> "SpeechDataset":
        """Return the same rows, whose :meth:`row` does not read the audio."""
        if self.audio_column not in self.table.column_names:
            return self
        return dataclasses.replace(self, table=self.table.remove_columns(self.audio_column))

    def _row(self, index: int, values: dict[str, Any]) -> Example:
        audio = values.pop(self.audio_column, None)
        seconds = values.get(DURATION_COLUMN)

        def text(column: str | None) -> str | None:
            value = None if column is None else values.get(column)
            return None if value is None else str(value)

        return Example(
            index=index,
            sample_id=str(values[ID_COLUMN]),
            audio=audio,
            reference=text(self.text_column),
            label=text(self.label_column or self.text_column),
            speaker=text(self.speaker_column),
            duration_seconds=None if seconds is None else float(seconds),
            values=values,
            problem=self.problems.get(index),
            origin=self.origin,
            number=self.first_row + (index if self.numbers is None else int(self.numbers[index])),
            policy=self.policy,
            channel=self.channel,
        )

    def rename_rows(self, column: str) -> "SpeechDataset":
        """Return the same rows, named by the values of another column; a row without a value keeps its name.

        Raises:
            InputError: If there is no such column.
        """
        if column == ID_COLUMN:
            return self
        values = zip(self.column(column), self.ids(), strict=True)
        names = [name if value is None else str(value) for value, name in values]
        return self.with_columns({ID_COLUMN: names})

    def select(self, indices: Sequence[int]) -> "SpeechDataset":
        """Return the rows with these numbers in this order, without copying audio."""
        chosen = np.asarray(indices, np.int64)
        problems = {}
        if self.problems:
            found = ((position, self.problems.get(int(index))) for position, index in enumerate(chosen))
            problems = {position: problem for position, problem in found if problem is not None}
        return dataclasses.replace(
            self,
            table=self.table.select(chosen),
            problems=problems,
            numbers=chosen if self.numbers is None else self.numbers[chosen],
        )

    def group_by_speaker(self) -> "SpeechDataset":
        """Return the rows grouped by speaker, in their order; rows without a speaker come last.

        Each row then counts as the successor of the row before it, so prompts may be taken from there.
        """
        if self.speaker_column is None:
            return self
        speakers = self._texts(self.speaker_column)
        order = sorted(range(len(self)), key=lambda row: (speakers[row] is None, speakers[row] or ""))
        return dataclasses.replace(self.select(order), numbers=None, first_row=0)

    def with_columns(self, columns: Mapping[str, Sequence[Any]]) -> "SpeechDataset":
        """Return the same rows with columns added, or replaced where the name exists.

        Args:
            columns: Values of each column, one per row, by name.

        Raises:
            ValueError: If a column does not have one value per row.
        """
        table = self.table
        for name, values in columns.items():
            if len(values) != len(table):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(table)} rows")
            if name in table.column_names:
                table = table.remove_columns(name)
            table = table.add_column(name, list(values))
        return dataclasses.replace(self, table=table)

    def _audio_batches(self) -> Any:
        """Yield the audio column in batches that are small enough for memory."""
        audio = self.table.select_columns([self.audio_column]).with_format("arrow")
        for batch in audio.iter(batch_size=64):
            yield batch[self.audio_column].combine_chunks()

    def audio_sizes(self) -> list[int]:
        """Return the number of bytes of every recording as it is stored; 0 where there is none."""
        import pyarrow.compute

        sizes: list[int] = []
        for batch in self._audio_batches():
            stored = pyarrow.compute.binary_length(pyarrow.compute.struct_field(batch, "bytes")).to_pylist()
            paths = pyarrow.compute.struct_field(batch, "path").to_pylist()
            sizes += [
                _file_size(path) if size is None else size for size, path in zip(stored, paths, strict=True)
            ]
        return sizes

    def fingerprint(self) -> str:
        """Return a digest of the rows' names and recordings, the same in every process.

        Embedded audio counts by its contents, and a file by its path, size and time of change.
        """
        digest = hashlib.blake2b(digest_size=16)
        if self.channel is not None:
            digest.update(f"channel {self.channel}\0".encode())
        for sample_id in self.ids():
            digest.update(sample_id.encode() + b"\0")
        for batch in self._audio_batches():
            for value in batch.to_pylist():
                digest.update(_audio_identity(value))
        return digest.hexdigest()


def concatenate_parts(parts: Sequence[SpeechDataset], table: "datasets.Dataset") -> SpeechDataset:
    """Concatenate parts of one data set.

    Args:
        parts: At least one.
        table: Their rows.
    """
    numbers = [
        part.first_row + (np.arange(len(part)) if part.numbers is None else part.numbers) for part in parts
    ]
    return dataclasses.replace(
        parts[0],
        table=table,
        problems=concatenate_problems(parts),
        numbers=np.concatenate(numbers),
        first_row=0,
    )


def concatenate_problems(parts: Sequence[SpeechDataset]) -> dict[int, str]:
    """Return the problems of concatenated data sets by row number."""
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return {
        start + index: problem
        for start, part in zip(starts, parts, strict=False)
        for index, problem in part.problems.items()
    }


def _file_size(path: str | None) -> int:
    try:
        return Path(split_fragment(path)[0]).stat().st_size if path else 0
    except (OSError, ValueError):
        return 0


def _audio_identity(value: Mapping[str, Any] | None) -> bytes:
    """Return bytes that change when the recording of a row changes."""
    if value is None:
        return b"none"
    path = str(value["path"])
    file, fragment = split_fragment(path)
    if value["bytes"] is not None:
        digest = hashlib.blake2b(value["bytes"], digest_size=16).digest()
        return b"bytes" + digest + fragment.encode()
    try:
        status = Path(file).stat()
    except (OSError, ValueError):
        return f"lost {path}\0".encode()
    return f"file {path} {status.st_size} {status.st_mtime_ns}\0".encode()


def is_token_list(value: Any) -> bool:
    """Return whether a value of :data:`PREVIOUS_COLUMN` is a list of token ids; it may also be a flag."""
    return isinstance(value, list) and all(type(token) is int for token in value)


def require_columns(table: "datasets.Dataset", columns: Sequence[str], *, name: str) -> None:
    """Check that a table has columns.

    Raises:
        InputError: If a column is missing; the message names it and the columns that exist.
    """
    for column in columns:
        if column not in table.column_names:
            existing = ", ".join(table.column_names)
            raise InputError(f"data set {name!r} has no column {column!r}: name one of {existing}")
