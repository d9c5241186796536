"""Checkpoints of one student in one run: each recording is encoded once, and nothing else changes."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.formats.huggingface import SafetensorsReader
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.job import run
from flax_distil.evaluation.shared_encoders import SharedEncoder, group_by_encoder
from flax_distil.parallel.config import ParallelConfig
from flax_distil.parallel.make_partitioner import join_local_devices
from flax_distil.transcription.generator import WhisperGenerator
from tests.toys import TOY, compilations, write_prompts

STEPS = (10, 2)


@pytest.fixture(scope="module")
def checkpoints(teacher, tmp_path_factory):
    """Two decoders on one encoder, and a checkpoint with an encoder of its own."""
    runs = tmp_path_factory.mktemp("runs")
    source = load_checkpoint(teacher)
    for number, step in enumerate((*STEPS, 300)):
        branch = "encoder" if step == 300 else "decoder"
        changed = jax.tree.map(lambda leaf, n=number: leaf * jnp.float32(1 + 0.3 * n), source.params[branch])
        params = {**source.params, branch: changed}
        export_checkpoint(params, TOY, runs / f"checkpoint-{step}", files=source.files, dtype=jnp.float32)
    return runs


def config(checkpoints, prompts, folder, models, **changes):
    return build(
        EvalConfig, model_name_or_path=models, dataset_name=str(prompts), per_device_eval_batch_size=2,
        generation_max_length=4, output_dir=str(folder), **changes,
    )  # fmt: skip


@pytest.mark.slow
def test_recordings_are_encoded_once_and_transcripts_are_those_of_a_single_run(
    checkpoints, prompts_dir, tmp_path, monkeypatch
):
    partitioner = join_local_devices(ParallelConfig())
    monkeypatch.setattr("flax_distil.evaluation.job.join_local_devices", lambda _: partitioner)
    prompts, encoded = write_prompts(tmp_path, prompts_dir), []
    encode = WhisperGenerator._encode_samples
    monkeypatch.setattr(
        WhisperGenerator,
        "_encode_samples",
        lambda self, samples_BW: (encoded.append(bool(samples_BW.any())), encode(self, samples_BW))[1],
    )

    def texts(folder, label):
        lines = (
            (folder / "predictions" / label / "prompts" / "clean" / "00000.jsonl").read_text().splitlines()
        )
        found = [json.loads(line).get("prediction") for line in lines]
        return {line["id"]: (line["text"], line["avg_logprob"]) for line in found if line}

    run(config(checkpoints, prompts, tmp_path / "one", str(checkpoints / "checkpoint-10")))
    batches = sum(encoded)
    encoded.clear()
    together = config(checkpoints, prompts, tmp_path / "both", str(checkpoints / "checkpoint-[12]*"))
    with compilations() as compiled:
        results = run(together)
    assert sum(encoded) == batches
    assert [name for name in compiled if "generate" in name or "encode" in name] == []
    assert list(results["models"]) == ["checkpoint-2", "checkpoint-10"]  # by number
    assert texts(tmp_path / "both", "checkpoint-10") == texts(tmp_path / "one", "checkpoint-10")
    assert texts(tmp_path / "both", "checkpoint-10") != texts(tmp_path / "both", "checkpoint-2")
    assert all(entry["speed"]["rtfx"] > 0 for entry in results["models"].values())
    assert [entry["total"]["clean"]["sessions"] for entry in results["models"].values()] == [1, 1]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_only_equal_encoders_are_shared_and_to_find_them_no_decoder_is_read(
    checkpoints, tmp_path, dtype, monkeypatch
):
    names, read = [], SafetensorsReader.read
    monkeypatch.setattr(
        SafetensorsReader, "read", lambda self, name: (names.append(name), read(self, name))[1]
    )
    found = config(checkpoints, tmp_path, tmp_path, str(checkpoints / "checkpoint-*"), dtype=dtype)
    labels = ["checkpoint-2", "checkpoint-10", "checkpoint-300"]
    assert list(found.models) == labels
    assert group_by_encoder(found, labels) == [labels[:2], labels[2:]]
    assert names
    assert not [name for name in names if "encoder" not in name]


def test_saved_time_of_the_encoder_counts(monkeypatch):
    shared, windows = SharedEncoder(), np.ones((1, 8), np.float32)
    clock = iter((10.0, 12.5, 20.0, 21.0, 30.0, 30.5))
    own_time = types.SimpleNamespace(perf_counter=lambda: next(clock))  # JAX goes on with the real one
    monkeypatch.setattr("flax_distil.evaluation.shared_encoders.time", own_time)

    def encode(samples_BW):
        return {"encoder_out_BSD": jnp.asarray(samples_BW)}

    first = shared(windows, encode)
    assert shared.credit_seconds == 0
    assert shared(windows, encode) is first
    assert shared.credit_seconds == 2.5
    assert shared(windows + 1, encode) is not first
    shared.forget()
    assert shared(windows, encode) is not first
    assert shared.credit_seconds == 0


def test_a_pattern_that_fits_nothing_is_told(tmp_path):
    with pytest.raises(InputError, match="fits no folder here"):
        run(config(None, "d", tmp_path / "out", str(tmp_path / "checkpoint-*")))
