"""The same training, evaluation and generation under any layout of devices; used by scripts and tests.

Small models, but all of the real programs of a run: ``TrainShardings`` and ``TrainStepFns``.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_distil.core.arrays import Params
from flax_distil.core.nested import build
from flax_distil.core.tree import flatten
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.shardings import TrainShardings
from flax_distil.distillation.setup.step_fns import TrainStepFns
from flax_distil.distillation.train_state import partition_params
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.make_partitioner import make_partitioner
from flax_distil.parallel.partitioner import MICRO_BATCHES, Partitioner
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.short_form import ShortFormTranscriber

UPDATES = 5
ROWS = 8
SMALL = WhisperConfig(
    vocab_size=96, num_mel_bins=8, d_model=16, encoder_layers=2, decoder_layers=2,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
    max_source_positions=20, max_target_positions=32,
)  # fmt: skip
TEACHER = dataclasses.replace(SMALL, decoder_layers=3)
MARKS = SpecialTokens(
    eot=88, sot=89, sot_prev=90, no_speech=91, no_timestamps=92, timestamp_begin=93, vocab_size=96
)
"""Special tokens that rows of random tokens have as any others: what comes behind the last one is text."""

SPEAKING = WhisperConfig(
    vocab_size=51864, d_model=16, encoder_layers=1, decoder_layers=1,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
)  # fmt: skip

LAYOUTS: dict[str, dict[str, Any]] = {
    "pmap×8": {"parallelism": "pmap"},
    "data×8": {"mesh": "data=8"},
    "fsdp×8": {"mesh": "fsdp=8"},
    "tensor×2·data×4": {"mesh": "tensor=2,data=4"},
    "fsdp×4·tensor×2": {"mesh": "data=1,fsdp=4,tensor=2"},
    "all three, teacher whole": {"mesh": "data=2,fsdp=2,tensor=2", "teacher_sharding": "none"},
    "all three, teacher by fsdp": {"mesh": "data=2,fsdp=2,tensor=2", "teacher_sharding": "fsdp"},
    "vocabulary whole": {"mesh": "data=4,tensor=2", "shard_vocabulary": False},
}

RARE = ("data×8", "tensor×2·data×4", "all three, teacher by fsdp", "vocabulary whole")
"""Layouts that only slow tests try."""

COMPILED_MOST = ("pmap×8", "fsdp×8", "fsdp×4·tensor×2")
"""Layouts under which everything else is tried too; compiling it under all of them takes minutes."""


def config(*, freeze_encoder: bool, **options: Any) -> DistillConfig:
    # A large epsilon: else the sign of a gradient that is nearly 0, which is rounding, moves a parameter.
    given = {
        "teacher_model_name_or_path": "teacher", "train_dataset_name": "speech", "output_dir": "student",
        "precision": "full", "warmup_steps": 0, "max_steps": 10, "learning_rate": 1e-2, "adam_epsilon": 1e-2,
        "mse_weight": 0.02, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    return build(DistillConfig, given | options, freeze_encoder=freeze_encoder)


def random_params(shape: WhisperConfig, seed: int, scale: float = 0.5) -> Params:
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.normal(scale=scale, size=leaf.shape).astype(np.float32), whisper_shapes(shape)
    )


def training_batch(micro_batches: int = 2) -> Batch:
    """Rows of very different lengths; the first has no label token at all."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, SMALL.vocab_size, (2, ROWS, 13), np.int32)
    mask = np.arange(12) < np.arange(ROWS)[:, None] * 12 // (ROWS - 1)
    batch = Batch(
        mel_BRM=random.normal(size=(2, ROWS, 40, 8)).astype(np.float32),
        decoder_input_ids_BT=tokens[:, :, :-1],
        labels_BT=tokens[:, :, 1:],
        loss_mask_BT=np.broadcast_to(mask, (2, ROWS, 12)).copy(),
        kl_weight_B=random.choice(np.array([0, 0.5, 1], np.float32), (2, ROWS)),
    )
    return jax.tree.map(lambda value: value.reshape(micro_batches, -1, *value.shape[2:]), batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    partitioner: Partitioner
    state: Any
    params: dict[str, np.ndarray]
    history: list[dict[str, float]]
    fns: TrainStepFns
    arguments: tuple[Any, ...]


def train(run: DistillConfig, partitioner: Partitioner, batch: Batch) -> Trained:
    """Do ``UPDATES`` updates on this process's rows of the batch."""
    shared = run.freeze.freeze_encoder
    layout = TrainShardings(
        run, partitioner, student=SMALL, teacher=TEACHER, shares_encoder=shared, special=MARKS
    )
    fns = TrainStepFns(run.optimizer_for(10), layout, partitioner)
    student, teacher = random_params(SMALL, 2), random_params(TEACHER, 1)
    if shared:
        student["encoder"] = teacher.pop("encoder")
    trainable, frozen = partition_params(student, run.freeze)
    state = fns.init(partitioner.device_put(trainable, layout.trainable.specs))
    others = (
        layout.frozen.device_put(partitioner, frozen),
        layout.teacher.device_put(partitioner, teacher),
    )
    history = []
    for _ in range(UPDATES):
        state, metrics = fns.train(state, *others, partitioner.put_batch(batch, MICRO_BATCHES))
        history.append({name: float(value) for name, value in partitioner.device_get(metrics).items()})
    return Trained(
        partitioner=partitioner,
        state=state,
        params=flatten(partitioner.device_get(state.params)),
        history=history,
        fns=fns,
        arguments=others,
    )


def evaluate(trained: Trained) -> list[float]:
    batch = jax.tree.map(lambda value: value[0], training_batch())
    sums = trained.fns.evaluate(
        trained.state.params, *trained.arguments, trained.partitioner.put_batch(batch)
    )
    return [float(value) for value in jax.tree.leaves(trained.partitioner.device_get(sums))]


def speaker(partitioner: Partitioner, folder: Path, **options: Any) -> ShortFormTranscriber:
    """Return a random model that says something."""
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    settings = GenerationSettings.from_folder(folder, tokenizer.special)
    params = random_params(SPEAKING, 3)
    return ShortFormTranscriber(
        WhisperGenerator(
            SPEAKING,
            partitioner.device_put(params, partitioner.weight_specs(whisper_shapes(SPEAKING))),
            tokenizer,
            dataclasses.replace(settings, alignment_heads=((0, 1),)),  # of the second device of a tensor axis
            options=TranscriptionOptions(max_new_tokens=8, **options),
            compute=ComputeOptions(),
            partitioner=partitioner,
        )
    )


def transcribe(partitioner: Partitioner, folder: Path, tones: np.ndarray) -> list[list[Any]]:
    """Return the tokens that a random model says to this process's tones, and when its words end."""
    return [
        [transcript.tokens, [word.end for segment in transcript.segments for word in segment.words or ()]]
        for transcript in speaker(partitioner, folder, word_timestamps=True).transcribe(tones)
    ]


def tones() -> np.ndarray:
    seconds_W = np.arange(480_000) / 16_000
    pitch_B = 110.0 * 2.0 ** (np.arange(ROWS) * 0.75)
    return np.sin(2 * np.pi * pitch_B[:, None] * seconds_W).astype(np.float32)


def differences(found: Trained, wanted: Trained) -> dict[str, Any]:
    """Return the largest relative difference of any metric of any update, and of any weight."""
    return {
        "metrics": max(
            abs(mine[name] - theirs[name]) / max(abs(theirs[name]), 1e-6)
            for mine, theirs in zip(found.history, wanted.history, strict=True)
            for name in theirs
            if not math.isnan(theirs[name]) or not math.isnan(mine[name])  # of labels, on policy
        ),
        "params": max(
            float(np.abs(found.params[path] - leaf).max() / np.abs(leaf).max())
            for path, leaf in wanted.params.items()
        ),
    }


def partitioner_for(run: DistillConfig) -> Partitioner:
    return make_partitioner(
        run.devices.parallelism, run.devices.mesh_shape, shard_vocabulary=run.devices.shard_vocabulary
    )
