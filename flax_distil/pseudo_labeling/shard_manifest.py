"""The record of a finished shard."""

import dataclasses
import json
from typing import Any

from flax_distil.pseudo_labeling.shard_plan import Position, ShardKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardManifest:
    """What is known of a finished shard.

    Attributes:
        key: Number of the shard.
        after: Where the next shard of a stream begins; None behind the last shard, and for tables.
        samples: Rows of the source.
        file: Parquet file, relative to the output folder; None if no recording could be transcribed.
        rows: Rows of the file.
        bytes: Size of the file.
        sha256: Digest of the file.
        audio_seconds: Seconds of audio in the file.
        tokens: Number of generated tokens.
        errors: Counts against the references, as ``flax_distil.metrics.word_errors.ErrorCounts`` has them.
        skipped: Recordings without a label, as ``SkippedSamples.get_state`` gives them.
        process_seconds: Wall-clock time of the one process that labeled the shard.
        processes: Number of processes that worked at the same time.
    """

    key: ShardKey
    after: Position | None
    samples: int
    file: str | None = None
    rows: int = 0
    bytes: int = 0
    sha256: str | None = None
    audio_seconds: float = 0.0
    tokens: int = 0
    errors: dict[str, int]
    skipped: dict[str, Any]
    process_seconds: float
    processes: int

    def to_json(self) -> str:
        """Return the manifest as one line."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "ShardManifest":
        """Read the line of :meth:`to_json`."""
        values = json.loads(line)
        after = values["after"]
        position = None if after is None else tuple(after)
        return cls(**{**values, "key": tuple(values["key"]), "after": position})
