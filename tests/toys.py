"""A teacher small enough to distil in seconds, prompts to distil it on, and runs that are looked into."""

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.job import DistillResult, run
from flax_distil.distillation.setup.step_fns import TrainStepFns
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.config import WhisperConfig

TOY = WhisperConfig(
    vocab_size=51864, d_model=32, encoder_layers=1, decoder_layers=2,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
)  # fmt: skip

USABLE_PROMPTS = 7
BROKEN_ROW = 2


def write_teacher(folder: Path, tiny_en_dir: Path, *, seed: int = 0) -> Path:
    """Export a random Whisper with tiny.en's tokenizer; what it hears decides what it says."""
    random = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(scale=0.5, size=leaf.shape), leaf.dtype), whisper_shapes(TOY)
    )
    files = load_checkpoint(tiny_en_dir, config_only=True).files
    return export_checkpoint(params, TOY, folder, files=files, dtype=jnp.float32)


def write_changed(source: Path, folder: Path, **config: Any) -> Path:
    """Copy a checkpoint without its weights, with other entries in ``config.json``."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def write_prompts(folder: Path, prompts_dir: Path) -> Path:
    """List seven short prompts with pseudo-labels, and among them a file that is no audio."""
    lines = (prompts_dir / "validation" / "metadata.jsonl").read_text().splitlines()[:USABLE_PROMPTS]
    rows = [
        {
            "audio": str(prompts_dir / "validation" / row["file_name"]),
            "text": row["text"],
            "whisper_transcript": row["text"],
        }
        for row in map(json.loads, lines)
    ]
    (folder / "broken.wav").write_bytes(b"this is not audio")
    rows.insert(BROKEN_ROW, {"audio": "broken.wav", "text": "Hello.", "whisper_transcript": "Hello."})
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservedRun:
    """A run, its programs with their caches, and what it logged."""

    folder: Path
    result: DistillResult
    fns: TrainStepFns
    messages: list[str]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The objects of ``metrics.jsonl``."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def by_step(self, name: str) -> dict[int, float]:
        return {line["step"]: line[name] for line in self.lines if name in line}


def observe(config: DistillConfig, **options: Any) -> ObservedRun:
    """Run a distillation, with options of its Python API."""
    made: list[TrainStepFns] = []
    describe = TrainStepFns.__init__

    def noted(self: TrainStepFns, *args: Any, **options: Any) -> None:
        describe(self, *args, **options)
        made.append(self)

    handler, messages = logging.Handler(), []
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("flax_distil")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainStepFns, "__init__", noted)
            result = run(config, **options)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    return ObservedRun(folder=config.output.path, result=result, fns=made[0], messages=messages)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Collect an entry for every program that is compiled meanwhile."""
    compiled: list[str] = []

    def note(event: str, _: float, **details: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(str(details.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
