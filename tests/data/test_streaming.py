"""Training on streams and mixtures: every row once in every epoch, the very next sample after a resume."""

import dataclasses
import itertools
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.segmentation import flac_bytes
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.preprocessing.packing import pack_rows
from flax_distil.data.shards.parquet_shard import ParquetShard
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.data.tables import to_speech_dataset
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import StreamSource, TableSource, TrainingData
from flax_distil.text.normalizers import get_normalizer

pytestmark = pytest.mark.integration

CORPUS = Path(__file__).parents[2] / "examples" / "asterisk_prompts" / "validation"
ROWS, SHARDS = 60, 5
CONFIG = PipelineConfig(batch_size=4, num_threads=2, shuffle_buffer_size=16)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """The first seconds of recorded prompts; who speaks changes now and then."""
    lines = (CORPUS / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
    found = []
    for number, row in enumerate(map(json.loads, lines)):
        path = CORPUS / row.pop("file_name")
        audio = {"bytes": flac_bytes(decode_audio(path)[: 3 * SAMPLING_RATE]), "path": None}
        row["duration"] = min(3.0, row["duration"])
        found.append({**row, "id": f"row{number:02d}", "audio": audio, "speaker_id": f"s{number // 7}"})
    return found


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory) -> Path:
    """The prompts in Parquet files of unequal size."""
    folder = tmp_path_factory.mktemp("stream")
    bounds = [0, 3, 20, 33, 47, ROWS]
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        part = datasets.Dataset.from_list(rows[start:stop])
        part.to_parquet(str(folder / f"{number}.parquet"), batch_size=5)
    return folder


@pytest.fixture
def stream(folder) -> IterableSpeechDataset:
    shards = [ParquetShard(name=path.stem, path=str(path)) for path in sorted(folder.glob("*.parquet"))]
    return IterableSpeechDataset(name="prompts", shards=tuple(shards), text_column="text")


@pytest.fixture
def table(rows):
    return to_speech_dataset(
        datasets.Dataset.from_list(rows), name="table", text_column="text", id_prefix="table"
    )


@pytest.fixture(scope="module")
def builder(english_tokenizer) -> LabelBuilder:
    return LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=0.5))


@pytest.fixture
def opened(builder):
    """Makes pipelines and stops their threads at the end."""
    pipelines = []

    def source(data, *, concatenate=False, filters=None, **options):
        if not isinstance(data, IterableSpeechDataset):
            packs = pack_rows(data, labels=builder) if concatenate else None
            return TableSource(data=data, labels=builder, packs=packs, **options)
        return StreamSource(
            stream=data,
            labels=builder,
            filters=filters or FilterConfig(),
            normalize=get_normalizer("en"),
            concatenate=concatenate,
            **options,
        )

    def make(*data, config=CONFIG, seed=0, shuffle=True, restart=True, **options) -> TrainingPipeline:
        sources = [entry if isinstance(entry, dict) else {"data": entry} for entry in data]
        made = [source(**{**options, **entry}) for entry in sources]
        pipelines.append(
            TrainingPipeline(TrainingData(sources=made), config, seed=seed, shuffle=shuffle, restart=restart)
        )
        return pipelines[-1]

    yield make
    for pipeline in pipelines:
        pipeline.close()


def ids_of(batches) -> list[str]:
    return [sample_id for batch in batches for sample_id in batch.ids]


def assert_same(batches, others) -> None:
    for batch, other in zip(batches, others, strict=True):
        for name, value in vars(batch).items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def with_threads(number: int) -> PipelineConfig:
    return dataclasses.replace(CONFIG, num_threads=number)


GLOBAL_BATCH = 12


def processes(count: int, size: int = GLOBAL_BATCH) -> list[PipelineConfig]:
    """Return the configuration of each process of a run."""
    return [
        dataclasses.replace(with_threads(0), batch_size=size // count, shard_count=count, shard_index=number)
        for number in range(count)
    ]


def test_a_stream_gives_every_row_once_in_every_epoch_in_an_order_of_its_own(stream, opened):
    ids = ids_of(islice(opened(stream), 30))
    epochs = [ids[:ROWS], ids[ROWS : 2 * ROWS]]
    assert [sorted(epoch) for epoch in epochs] == [[f"row{number:02d}" for number in range(ROWS)]] * 2
    assert epochs[0] != epochs[1] != sorted(epochs[1])
    assert ids_of(islice(opened(stream), 30)) == ids
    assert ids_of(islice(opened(stream, seed=1), 15)) != epochs[0]
    assert ids_of(islice(opened(stream, shuffle=False), 15)) == sorted(epochs[0])


KINDS = pytest.mark.parametrize("kind", ["table", "stream", "mixture"])


def sources_of(kind, table, stream) -> list:
    mixture = [{"data": table, "weight": 1.0}, {"data": stream, "weight": 2.0}]
    return {"table": [table], "stream": [stream], "mixture": mixture}[kind]


@KINDS
@pytest.mark.parametrize("concatenate", [False, True])
def test_batches_do_not_depend_on_the_number_of_workers(kind, concatenate, table, stream, opened):
    sources = sources_of(kind, table, stream)
    one, *others = (
        list(islice(opened(*sources, config=with_threads(threads), concatenate=concatenate), 8))
        for threads in (0, 1, 4)
    )
    for other in others:
        assert_same(other, one)


@KINDS
@pytest.mark.parametrize("concatenate", [False, True])
@pytest.mark.parametrize("taken", [1, 6])
def test_a_resumed_run_goes_on_with_the_very_next_sample(kind, concatenate, taken, table, stream, opened):
    sources = sources_of(kind, table, stream)
    wanted = list(islice(opened(*sources, concatenate=concatenate), 10))
    first = opened(*sources, concatenate=concatenate)
    list(islice(first, taken))
    state = json.loads(json.dumps(first.get_state()))
    later = opened(*sources, concatenate=concatenate, config=with_threads(0))
    later.set_state(state)
    assert_same(list(islice(later, 10 - taken)), wanted[taken:])
    assert later.drawn.sum() == 40


def test_a_stream_and_a_table_teach_the_same(table, stream, builder, opened):
    """In file order, in one window, both are packed and labelled alike."""
    config = dataclasses.replace(CONFIG, shuffle_buffer_size=ROWS)
    parts = [opened(data, config=config, shuffle=False, concatenate=True) for data in (table, stream)]
    for batch, other in zip(*(islice(part, 3) for part in parts), strict=True):
        for name in ("ids", "samples_BW", "duration_B"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(other, name))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (100.0, 360.0)])
def test_data_sets_are_mixed_in_their_proportions(weights, table, stream, opened):
    sources = [
        {"data": data, "weight": weight} for data, weight in zip((table, stream), weights, strict=True)
    ]
    pipeline = opened(*sources)
    counts = sum(np.bincount(batch.source_B, minlength=2) for batch in islice(pipeline, 20))
    np.testing.assert_allclose(counts / 80, np.array(weights) / sum(weights), atol=1 / 80)
    np.testing.assert_array_equal(pipeline.drawn, counts)
    assert pipeline.proportions() == (
        f"samples drawn: table {counts[0]} ({counts[0] / 80:.1%}), prompts {counts[1]} ({counts[1] / 80:.1%})"
    )


@pytest.mark.parametrize("restart", [True, False])
def test_a_mixture_begins_anew_when_the_first_is_exhausted_or_when_all_are(table, stream, opened, restart):
    small, large = table.select(range(10)), stream
    sources = [{"data": small, "weight": 1.0}, {"data": large, "weight": 1.0}]
    batches = list(islice(opened(*sources, restart=restart), 12))
    drawn = [[], []]
    for batch in batches:
        for source, sample_id in zip(batch.source_B, batch.ids, strict=True):
            drawn[source].append(sample_id)
    assert all(Counter(drawn[0][start : start + 10]).most_common(1)[0][1] == 1 for start in (0, 10))
    # The large one goes on through its rows, or begins again with the small one.
    assert (len(set(drawn[1])) < len(drawn[1])) == restart


def test_streamed_shards_are_divided_among_processes_and_none_is_read_twice(stream, opened, caplog):
    configs = [dataclasses.replace(CONFIG, shard_index=p, shard_count=2, batch_size=1) for p in range(2)]
    epochs = []
    for config in configs:
        pipeline = opened(stream, config=config)
        epochs.append([b.ids[0] for b in itertools.takewhile(lambda b: b.epoch == 0, pipeline)])
    assert sorted(itertools.chain(*epochs)) == [f"row{number:02d}" for number in range(ROWS)]


def test_more_processes_than_files_read_each_file_several_times(stream, opened, caplog):
    six, three = ([opened(stream, config=config) for config in processes(count)] for count in (6, 3))
    assert "5 files for 6 processes: each file is read by 2 of them" in caplog.text
    for _ in range(4):
        assert ids_of(map(next, six)) == ids_of(map(next, three))


def test_filters_of_a_stream_count_what_they_drop_once(stream, opened):
    filters = build(FilterConfig, max_duration_in_seconds=2.0)
    pipeline = opened(stream, filters=filters)
    batches = list(islice(pipeline, 30))
    assert max(float(batch.duration_B.max()) for batch in batches) < 2.0
    (counts,) = pipeline.dropped().get_state().values()
    assert counts["kept"]["rows"] + counts["too long"]["rows"] == ROWS
    resumed = opened(stream, filters=filters)
    resumed.set_state(json.loads(json.dumps(pipeline.get_state())))
    next(resumed)
    assert resumed.dropped().get_state() == pipeline.dropped().get_state()


def test_a_stream_of_which_nothing_is_left_ends_with_a_reason(stream, opened):
    pipeline = opened(stream, filters=build(FilterConfig, max_duration_in_seconds=0.01))
    with pytest.raises(InputError, match="no sample of data set 'prompts' is left in a whole pass"):
        next(pipeline)


def test_a_stream_resumed_elsewhere_is_refused(stream, opened):
    state = opened(stream).get_state()
    with pytest.raises(InputError, match="fingerprint"):
        opened(dataclasses.replace(stream, shards=stream.shards[:4])).set_state(state)
    with pytest.raises(InputError, match="shuffle_buffer_size was 16 and is 8"):
        opened(stream, config=dataclasses.replace(CONFIG, shuffle_buffer_size=8)).set_state(state)


@pytest.mark.parametrize(
    ("kind", "concatenate", "batches"),
    [
        ("table", False, 2),
        ("stream", False, 1),
        ("mixture", True, 1),
        *(
            pytest.param(kind, concatenate, 3, marks=pytest.mark.slow)
            for kind in ("table", "stream", "mixture")
            for concatenate in (False, True)
        ),
    ],
)
def test_a_run_goes_on_with_the_same_batches_on_any_number_of_processes(
    kind, concatenate, batches, table, stream, opened
):
    data = table.with_columns({"audio": _one_damaged(table)})
    sources = sources_of(kind, data, stream)

    def run(counts: list[int], batches: int) -> list[tuple]:
        """Return what the rows of all batches hold, of runs one after the other."""
        found, state = [], None
        for count in counts:
            pipelines = [opened(*sources, config=c, concatenate=concatenate) for c in processes(count)]
            for pipeline in pipelines if state else []:
                pipeline.set_state(state)
            for _ in range(batches):
                found.append([row for pipeline in pipelines for row in _rows(next(pipeline))])
            parts = [pipeline.get_local_state() for pipeline in pipelines]
            state = json.loads(json.dumps(pipelines[0].merge_states(parts)))
            assert sum(state["drawn"]) == sum(row[1] for batch in found for row in batch)
        return found

    uninterrupted = run([4], 4 * batches)
    interrupted = run([4, 2, 1, 3], batches)
    assert interrupted == uninterrupted
    if kind == "table" and not concatenate:  # an epoch is five batches
        seen = [row[0] for batch in uninterrupted[: ROWS // GLOBAL_BATCH] for row in batch]
        assert len(seen) == len(set(seen)) == ROWS
        assert "" in seen  # the damaged one


def _one_damaged(table) -> list[dict]:
    audio = list(table.table["audio"])
    return [{"bytes": b"no audio", "path": None} if number == 7 else one for number, one in enumerate(audio)]


def _rows(batch) -> list[tuple]:
    return [
        (batch.ids[row], bool(batch.valid_B[row]), int(batch.source_B[row]), float(batch.duration_B[row]),
         batch.samples_BW[row].tobytes(), batch.labels_BT[row][batch.loss_mask_BT[row]].tobytes())
        for row in range(len(batch.ids))
    ]  # fmt: skip


def test_what_cannot_be_gone_on_with_is_refused(stream, opened):
    four = [opened(stream, config=config) for config in processes(4)]
    state = four[0].merge_states([pipeline.get_local_state() for pipeline in four])
    with pytest.raises(InputError, match="a batch of 6 samples cannot be divided over the 4 parts"):
        opened(stream, config=processes(3, 6)[0]).set_state(state)
    old = {key: value for key, value in state.items() if key != "shards"} | {"shard_count": 4}
    with pytest.raises(InputError, match="saved by an earlier version of flax_distil"):
        opened(stream, config=processes(4)[0]).set_state(old)


def test_a_run_of_one_process_can_be_gone_on_with_on_more_than_there_are_files(stream, opened):
    one = opened(stream, config=processes(1)[0])
    next(one)
    twelve = [opened(stream, config=config) for config in processes(12)]
    for pipeline in twelve:
        pipeline.set_state(one.get_state())
    np.testing.assert_array_equal(next(one).ids, [next(pipeline).ids[0] for pipeline in twelve])
