"""Which samples make a batch does not depend on how many processes read them, before or after a resume."""

import itertools
import json

import pytest

from flax_distil.data.training.global_batches import GlobalBatchSampler, merge_positions, rows_by_shard
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.samplers import SampleIndex, Sampler, State


class Counted(Sampler):
    """A data shard whose samples are numbered as they are drawn."""

    def __init__(self, shard: int):
        super().__init__()
        self.shard, self.drawn = shard, 0

    def __next__(self) -> SampleIndex:
        self.drawn += 1
        return SampleIndex(source=self.shard, epoch=0, number=self.drawn - 1)

    def get_state(self) -> State:
        return {"drawn": self.drawn}

    def set_state(self, state: State) -> None:
        self.drawn = state["drawn"]


def sampler(config: PipelineConfig, shards: int) -> GlobalBatchSampler:
    size = config.global_batch_size
    rows = rows_by_shard(config.rows, global_batch_size=size, num_data_shards=shards)
    return GlobalBatchSampler(rows, Counted)


def process_configs(count: int, size: int) -> list[PipelineConfig]:
    return [
        PipelineConfig(batch_size=size // count, shard_count=count, shard_index=number)
        for number in range(count)
    ]


@pytest.mark.parametrize("shards", range(1, 7))
def test_every_row_of_a_batch_is_the_same_sample_on_any_number_of_processes(shards):
    for size in (batch for batch in range(1, 37) if batch % shards == 0):
        whole = sampler(process_configs(1, size)[0], shards)
        wanted = [(row * shards // size, row % (size // shards)) for row in range(size)]
        assert [(index.source, index.number) for index in itertools.islice(whole, size)] == wanted
        counts = [count for count in range(1, size + 1) if size % count == 0]
        position, per_shard = None, size // shards
        for number, count in enumerate([*counts, *reversed(counts)]):
            samplers = [sampler(config, shards) for config in process_configs(count, size)]
            for part in samplers if position else []:
                part.set_state(position)
            drawn = [next(part) for part in samplers for _ in range(size // count)]
            assert [(index.source, index.number - number * per_shard) for index in drawn] == wanted
            parts = [{"drawn": [1], "shards": part.get_state()} for part in samplers]
            merged = merge_positions(json.loads(json.dumps(parts)))
            assert merged["drawn"] == [count]
            position = merged["shards"]
            assert list(position) == [str(shard) for shard in range(shards)]


def test_a_position_within_a_batch_is_that_before_it():
    part = sampler(process_configs(2, 12)[1], 3)
    states = [part.get_state() for _ in range(7) if next(part)]
    assert states[:5] == [{"1": {"drawn": 0}, "2": {"drawn": 0}}] * 5
    assert states[5:] == [{"1": {"drawn": 4}, "2": {"drawn": 4}}] * 2
