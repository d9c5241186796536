"""Decoding of full batches of random windows with random weights: windows of 30 s per second."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.machine import Compilations, peak_memory, random_params, seconds_of
from benchmarks.accelerator.settings import Size
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.transcription.decoding_request import DecodingRequest
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions


def check(size: Size, model: Path) -> dict[str, Any]:
    """Measure teacher and student; ``model`` gives the tokenizer alone."""
    return {name: measure(size, getattr(size, name)(), model) for name in ("teacher", "student")}


def measure(size: Size, config: WhisperConfig, model: Path) -> dict[str, Any]:
    """Time encoder and decode loop, apart and together, in bfloat16; every row gets all its tokens."""
    generator = random_generator(config, model)
    samples_BW = np.random.default_rng(0).normal(scale=0.1, size=(size.windows, config.window_samples))
    samples_BW = samples_BW.astype(np.float32)
    prompt = generator.prompts.build("en", generator.prompts.initial)
    requests = [DecodingRequest(prompt=prompt, limit=size.new_tokens)] * size.windows
    encoder_out = generator.encode_samples(samples_BW)

    def whole() -> list[Any]:
        return generator.collect(generator.dispatch(generator.encode_samples(samples_BW), requests))

    encoder = seconds_of(lambda: generator.encode_samples(samples_BW), rounds=size.rounds)
    decoder = seconds_of(
        lambda: generator.collect(generator.dispatch(encoder_out, requests)) and None, rounds=size.rounds
    )
    compilations = Compilations()
    both = seconds_of(lambda: whole() and None, rounds=size.rounds)
    tokens = sum(len(row.tokens) for row in whole())
    return {
        "windows": size.windows,
        "tokens": tokens,
        "encoder_seconds": encoder["median"],
        "decoder_seconds": decoder["median"],
        "decoder_compile_seconds": decoder["first"] - decoder["median"],
        "windows_per_second": size.windows / both["median"],
        "tokens_per_second": tokens / decoder["median"],
        "peak_memory_bytes": peak_memory(),
        "recompilations": compilations.count,
    }


def random_generator(config: WhisperConfig, model: Path) -> WhisperGenerator:
    """Return a generator of random bfloat16 weights with the tokenizer of a checkpoint."""
    tokenizer, settings = read_tokenizer(load_checkpoint(model, config_only=True).files)
    return WhisperGenerator(
        config, random_params(whisper_shapes(config), "bfloat16"), tokenizer, settings,
        options=TranscriptionOptions(language="en" if tokenizer.special.is_multilingual else None),
        compute=ComputeOptions(dtype="bfloat16"),
    )  # fmt: skip
