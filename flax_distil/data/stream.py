"""A data set in shards, which are read from front to back and never held in memory as a whole."""

import dataclasses
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset, concatenate_parts
from flax_distil.data.shards.shard import Cursor, Shard
from flax_distil.data.tables import to_speech_dataset
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy


@dataclass(frozen=True, kw_only=True)
class IterableSpeechDataset:
    """Recordings with texts in shards: the streamed counterpart of :class:`SpeechDataset`.

    Attributes:
        name: Short name for messages and reports.
        shards: At least one shard, in the order of the data set.
        audio_column: Column of recordings.
        text_column: Column of reference texts, or None when there are none.
        label_column: Column of pseudo-labels, or None when there are none.
        speaker_column: Column that identifies speakers; None takes a usual one where it exists.
        policy: Policy for repeating failed requests for a recording.
        channel: The channel of its recordings that is meant, counted from 0; None for the mean of all.
        id_column: Column that names rows; None for ``id``, and the number in the shard where there is none.
        local_files: Folder of the only files of this machine that rows may name, "" for none; None for any.
    """

    name: str
    shards: tuple[Shard, ...]
    audio_column: str = "audio"
    text_column: str | None = None
    label_column: str | None = None
    speaker_column: str | None = None
    policy: RetryPolicy = DEFAULT_POLICY
    channel: int | None = None
    id_column: str | None = None
    local_files: str | None = None

    def blocks(
        self, shard: int, cursor: Cursor | None = None
    ) -> Generator[tuple[SpeechDataset, Cursor | None]]:
        """Yield the blocks of a shard from a cursor on, each with the cursor after it (None at the end).

        Args:
            shard: Number of the shard.
            cursor: Cursor from an earlier reading; None for the beginning.

        Raises:
            InputError: If the shard cannot be read, or lacks a column.
        """
        import datasets

        source = self.shards[shard]
        with closing(source.blocks(cursor)) as blocks:
            for block in blocks:
                data = to_speech_dataset(
                    datasets.Dataset(block.table),
                    name=self.name,
                    audio_column=self.audio_column,
                    text_column=self.text_column,
                    label_column=self.label_column,
                    speaker_column=self.speaker_column,
                    id_prefix=source.name,
                    first_row=block.first_row,
                    local_files=self.local_files,
                )
                data = dataclasses.replace(data, policy=self.policy, channel=self.channel)
                yield data if self.id_column is None else data.rename_rows(self.id_column), block.after

    def first_rows(self) -> SpeechDataset:
        """Return the first block, which shows the columns and their types.

        Raises:
            InputError: If there are no rows, or a column does not exist.
        """
        for shard in range(len(self.shards)):
            with closing(self.blocks(shard)) as blocks:
                for data, _ in blocks:
                    return data
        raise InputError(f"data set {self.name!r} has no rows in its {len(self.shards)} files")


def join_blocks(blocks: Sequence[SpeechDataset]) -> SpeechDataset:
    """Return the rows of consecutive blocks of a stream as one.

    Args:
        blocks: At least one.

    Raises:
        InputError: If a column does not have the same type in all of them.
    """
    import datasets

    tables: list[Any] = [block.table for block in blocks]
    try:
        return concatenate_parts(blocks, datasets.concatenate_datasets(tables))
    except ValueError as error:
        raise InputError(
            f"the files of data set {blocks[0].name!r} have columns of different types: {error}"
        ) from error
