"""What tests ask of streams."""

from flax_distil.data.example import Example
from flax_distil.data.stream import IterableSpeechDataset


def all_rows(stream: IterableSpeechDataset) -> list[Example]:
    """Read every row, shard by shard."""
    return [
        data.row(index)
        for shard in range(len(stream.shards))
        for data, _ in stream.blocks(shard)
        for index in range(len(data))
    ]
