"""What tests ask of streams."""

from flax_distil.data.example import SpeechRow
from flax_distil.data.stream import SpeechStream


def all_rows(stream: SpeechStream) -> list[SpeechRow]:
    """Read every row, shard by shard."""
    return [
        data.row(index)
        for shard in range(len(stream.shards))
        for data, _ in stream.blocks(shard)
        for index in range(len(data))
    ]
