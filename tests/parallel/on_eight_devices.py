"""What needs eight devices, in a process that has them; prints JSON for ``test_data_parallel.py``.

python on_eight_devices.py FOLDER_OF_A_TOKENIZER
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from flax_distil.core import Params, flatten
from flax_distil.distillation import (
    Freezing,
    LossWeights,
    OptimiserConfig,
    StepConfig,
    encode,
    eval_step,
    init_state,
    make_optimiser,
    split_student,
    train_step,
)
from flax_distil.model import ComputeOptions, WhisperConfig, whisper_shapes
from flax_distil.parallel import (
    DATA_AXIS,
    batch_spec,
    data_mesh,
    over_data,
    put_batch,
    put_replicated,
)
from flax_distil.text import GenerationSettings, WhisperTokenizer
from flax_distil.transcription import ShortFormTranscriber, TranscriptionOptions

ROWS = 16
UPDATES = 3
OPTIONS = ComputeOptions(use_scan=True)
SMALL = WhisperConfig(
    vocab_size=97, num_mel_bins=8, d_model=16, encoder_layers=2, decoder_layers=2,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
    max_source_positions=20, max_target_positions=32,
)  # fmt: skip
SPEAKING = WhisperConfig(
    vocab_size=51864, d_model=16, encoder_layers=1, decoder_layers=1,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
)  # fmt: skip


def random_params(config: WhisperConfig, seed: int) -> Params:
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(scale=0.5, size=leaf.shape), leaf.dtype),
        whisper_shapes(config),
    )


def training_batch() -> dict[str, np.ndarray]:
    """Two micro-batches; the first device has no label token at all, the last one nearly all it could."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, SMALL.vocab_size, (2, ROWS, 13), np.int32)
    lengths = np.arange(ROWS)[:, None] * 12 // (ROWS - 1)
    return {
        "mel_KBRM": random.normal(size=(2, ROWS, 40, 8)).astype(np.float32),
        "decoder_input_ids_KBT": tokens[:, :, :-1],
        "labels_KBT": tokens[:, :, 1:],
        "loss_mask_KBT": np.broadcast_to(np.arange(12) < lengths, (2, ROWS, 12)).copy(),
    }


def step_config(axis_name: str | None) -> StepConfig:
    return StepConfig(
        student=SMALL, teacher=SMALL, student_options=OPTIONS, teacher_options=OPTIONS,
        weights=LossWeights(mse=0.02), axis_name=axis_name,
    )  # fmt: skip


def training(mesh: Mesh) -> dict[str, Any]:
    """Train the same student on the same batch, on one device and on all."""
    # A large epsilon: else the sign of a gradient that is nearly 0, which is rounding, moves a parameter.
    optimiser = make_optimiser(
        OptimiserConfig(learning_rate=1e-2, warmup_steps=0, max_steps=10, adam_epsilon=1e-2)
    )
    teacher, key, batch = random_params(SMALL, 1), jax.random.key(0), training_batch()

    def train(run: Any, place: Any, sent: Any) -> tuple[Params, list[dict[str, float]]]:
        trainable, frozen = split_student(random_params(SMALL, 2), Freezing(freeze_encoder=False))
        state, history = place(init_state(trainable, optimiser)), []
        for _ in range(UPDATES):
            state, metrics = run(state, place(frozen), place(teacher), sent, place(key))
            history.append({name: float(value) for name, value in metrics.items()})
        return jax.device_get(flatten(state.params)), history

    alone = jax.jit(functools.partial(train_step, step_config(None), optimiser))
    together = over_data(
        functools.partial(train_step, step_config(DATA_AXIS), optimiser),
        mesh,
        batch_argument=3,
        arguments=5,
        donate=(0,),
    )
    wanted, wanted_history = train(alone, lambda tree: tree, batch)
    found, history = train(together, lambda tree: put_replicated(tree, mesh), put_batch(batch, mesh))
    before = flatten(random_params(SMALL, 2))
    return {
        "one": wanted_history,
        "eight": history,
        "tokens_per_device": batch["loss_mask_KBT"].reshape(2, 8, -1).sum(axis=(0, 2)).tolist(),
        "difference": {path: largest(found[path] - wanted[path]) for path in wanted},
        "size": {path: largest(wanted[path]) for path in wanted},
        "moved": {path: largest(wanted[path] - before[path]) for path in wanted},
    }


def evaluation(mesh: Mesh) -> dict[str, Any]:
    batch = {name.replace("_KB", "_B"): value[0] for name, value in training_batch().items()}
    student, teacher = random_params(SMALL, 2), random_params(SMALL, 1)
    wanted = jax.jit(functools.partial(eval_step, step_config(None)))(student, {}, teacher, batch)
    run = over_data(functools.partial(eval_step, step_config(DATA_AXIS)), mesh, batch_argument=3, arguments=4)
    found = run(*(put_replicated(tree, mesh) for tree in (student, {}, teacher)), put_batch(batch, mesh))
    return {"one": [float(value) for value in wanted], "eight": [float(value) for value in found]}


def split_results(mesh: Mesh) -> dict[str, Any]:
    """Encode on all devices: each keeps the states of its own rows."""
    encoder, mel_BRM = random_params(SMALL, 1)["encoder"], training_batch()["mel_KBRM"][0]

    def states(encoder: Params, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"states_BSD": encode(SMALL, OPTIONS, encoder, batch["mel_BRM"])}

    run = over_data(states, mesh, batch_argument=1, arguments=2, results_split=True)
    found = run(put_replicated(encoder, mesh), put_batch({"mel_BRM": mel_BRM}, mesh))["states_BSD"]
    wanted = jax.jit(states)(encoder, {"mel_BRM": mel_BRM})["states_BSD"]
    return {"difference": largest(np.asarray(found) - np.asarray(wanted)), "shards": shapes(found)}


def placement(mesh: Mesh) -> dict[str, Any]:
    batch = {
        "labels_KBT": np.arange(2 * ROWS * 3).reshape(2, ROWS, 3),
        "samples_BW": np.arange(ROWS * 2.0).reshape(ROWS, 2),
        "valid_B": np.arange(ROWS) % 3 == 0,
    }
    tree = {"scale": np.arange(3.0), "norm": {"bias": jnp.float32(2.0)}}
    return {
        "batch": {name: shards(leaf) for name, leaf in put_batch(batch, mesh).items()},
        "sent": {name: value.tolist() for name, value in batch.items()},
        "replicated": {path: shards(leaf) for path, leaf in flatten(put_replicated(tree, mesh)).items()},
    }


def transcripts(mesh: Mesh, folder: Path) -> dict[str, Any]:
    """Transcribe eight tones."""
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    params = random_params(SPEAKING, 3)
    seconds_W = np.arange(480_000) / 16_000
    pitch_B = 110.0 * 2.0 ** (np.arange(8) * 0.75)
    samples_BW = np.sin(2 * np.pi * pitch_B[:, None] * seconds_W).astype(np.float32)

    def tokens(params: Params, sharding: NamedSharding | None) -> list[list[int]]:
        transcriber = ShortFormTranscriber(
            SPEAKING,
            params,
            tokenizer,
            GenerationSettings.from_folder(folder, tokenizer.special),
            options=TranscriptionOptions(max_new_tokens=8),
            compute=OPTIONS,
            batch_sharding=sharding,
        )
        return [transcript.tokens for transcript in transcriber.transcribe(samples_BW)]

    split = NamedSharding(mesh, batch_spec("samples_BW"))
    return {"one": tokens(params, None), "eight": tokens(put_replicated(params, mesh), split)}


def shards(leaf: jax.Array) -> list[Any]:
    """Return what each device holds, in order of devices."""
    held = sorted(leaf.addressable_shards, key=lambda shard: shard.device.id)
    return [np.asarray(shard.data).tolist() for shard in held]


def shapes(leaf: jax.Array) -> list[list[int]]:
    return [list(shard.data.shape) for shard in leaf.addressable_shards]


def largest(array: np.ndarray) -> float:
    return float(np.abs(array).max())


def main() -> None:
    mesh = data_mesh()
    results = {
        "mesh": dict(mesh.shape),
        "training": training(mesh),
        "evaluation": evaluation(mesh),
        "split_results": split_results(mesh),
        "placement": placement(mesh),
        "transcripts": transcripts(mesh, Path(sys.argv[1])),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
