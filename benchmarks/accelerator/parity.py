"""Real weights on this device against the CPU's float32 results, which are kept in small arrays.

The arrays are made on a CPU, once for each set of weights:

    JAX_PLATFORMS=cpu python -m benchmarks.accelerator.parity tiny.en
"""

import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.audio.clip import pad_or_trim
from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.arrays import Array
from flax_distil.model.assembly import bind_decoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.transcription.decoding_request import DecodingRequest
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions

GOLDEN = Path(__file__).parent / "golden"
_RECORDINGS = 3
_EVERY = 211
"""Of the vocabulary's logits every so many are kept, and that of the likeliest token of each position."""

LOGITS_TOLERANCE = {"float32": 1e-3, "bfloat16": 1.0}
"""Largest absolute difference of a logit. Logits reach 30, and bfloat16 has 8 significant bits."""


class Found(NamedTuple):
    """What a device computes of some recordings.

    Attributes:
        tokens_BT: Greedy tokens, -1 behind the end of each text.
        fed_BT: Prompt and text, padded with end-of-text: what the decoder is fed with for the logits.
        kept_BTC: Ids of the tokens whose logits are kept.
        logits_BTC: Their logits.
    """

    tokens_BT: np.ndarray
    fed_BT: np.ndarray
    kept_BTC: np.ndarray
    logits_BTC: np.ndarray


def check(model: Path) -> dict[str, Any]:
    """Compare tokens and logits in float32 and in bfloat16 with those of the CPU.

    Raises:
        FileNotFoundError: If there are no arrays for these weights.
    """
    checkpoint = load_checkpoint(model)
    kept = dict(np.load(golden_path(checkpoint)))
    samples_BW, golden = kept.pop("samples_BW"), Found(**kept)
    results: dict[str, Any] = {"recordings": len(samples_BW)}
    for dtype, tolerance in LOGITS_TOLERANCE.items():
        with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
            found = compute(checkpoint, dtype, samples_BW, golden)
        difference = float(np.abs(found.logits_BTC - golden.logits_BTC).max())
        width = max(found.tokens_BT.shape[1], golden.tokens_BT.shape[1])
        same = (_padded(found.tokens_BT, width) == _padded(golden.tokens_BT, width)).all(axis=1)
        results[dtype] = {
            "largest_logit_difference": difference,
            "same_tokens": int(same.sum()),
            "passed": difference <= tolerance and (dtype != "float32" or bool(same.all())),
        }
    return results


def compute(checkpoint: Checkpoint, dtype: str, samples_BW: np.ndarray, golden: Found | None = None) -> Found:
    """Decode recordings greedily, and compute logits of the CPU's text, or of the text found now.

    Args:
        checkpoint: The weights, in float32.
        dtype: Element type of the computations.
        samples_BW: 16 kHz recordings as int16.
        golden: What the CPU found; None while that is made.
    """
    tokenizer, settings = read_tokenizer(checkpoint.files)
    language = "en" if tokenizer.special.is_multilingual else None
    generator = WhisperGenerator(
        checkpoint.config, checkpoint.params, tokenizer, settings,
        options=TranscriptionOptions(language=language), compute=ComputeOptions(dtype=dtype),
    )  # fmt: skip
    window = checkpoint.config.window_samples
    windows = [pad_or_trim(row.astype(np.float32) / 2**15, length=window) for row in samples_BW]
    encoder_out = generator.encode_samples(np.stack(windows))
    prompt = generator.prompts.build(language or "en", generator.prompts.initial)
    decoded = generator.collect(
        generator.dispatch(encoder_out, [DecodingRequest(prompt=prompt)] * len(windows))
    )
    rows = [list(row.tokens) for row in decoded if row is not None]
    width = max(map(len, rows))
    end = tokenizer.special.eot
    tokens_BT = np.array([row + [-1] * (width - len(row)) for row in rows], np.int32)
    text_BT = np.where(tokens_BT < 0, end, tokens_BT)
    fed_BT = (
        np.concatenate([np.tile(prompt, (len(rows), 1)), text_BT], axis=1).astype(np.int32)
        if golden is None
        else golden.fed_BT
    )
    logits_BTV = np.asarray(_logits(checkpoint, dtype, jnp.asarray(fed_BT), encoder_out["encoder_out_BSD"]))
    kept_BTC = _kept_tokens(logits_BTV) if golden is None else golden.kept_BTC
    return Found(tokens_BT, fed_BT, kept_BTC, np.take_along_axis(logits_BTV, kept_BTC, axis=2))


def _logits(checkpoint: Checkpoint, dtype: str, tokens_BT: Array, encoder_out_BSD: Array) -> Array:
    def run(params: Any, tokens_BT: Array, encoder_out_BSD: Array) -> Array:
        decoder = bind_decoder(checkpoint.config, ComputeOptions(dtype=dtype), params)
        return decoder.logits(decoder(tokens_BT, encoder_out_BSD).hidden_BTD)

    return jax.jit(run)(checkpoint.params["decoder"], tokens_BT, encoder_out_BSD)


def _kept_tokens(logits_BTV: np.ndarray) -> np.ndarray:
    likeliest_BT1 = logits_BTV.argmax(axis=2)[..., None]
    some = np.arange(0, logits_BTV.shape[2], _EVERY)
    return np.concatenate(
        [likeliest_BT1, np.broadcast_to(some, (*logits_BTV.shape[:2], len(some)))], axis=2
    ).astype(np.int32)


def _padded(tokens_BT: np.ndarray, width: int) -> np.ndarray:
    return np.pad(tokens_BT, ((0, 0), (0, width - tokens_BT.shape[1])), constant_values=-1)


def golden_path(checkpoint: Checkpoint) -> Path:
    """Return the file of the arrays for these weights, whose name has a checksum of the token embedding."""
    embedding = np.asarray(checkpoint.params["decoder"]["token_embedding"]["embedding"])
    return GOLDEN / f"{zlib.crc32(embedding.tobytes()):08x}.npz"


def make_golden(model: Path) -> Path:
    """Write the arrays for these weights, computed in float32 on this machine's CPU."""
    from benchmarks.generation import read_recordings

    rows = read_recordings("prompts", 16)[:_RECORDINGS]
    width = max(map(len, rows))
    samples_BW = np.stack([np.round(pad_or_trim(row, length=width) * 2**15).astype(np.int16) for row in rows])
    checkpoint = load_checkpoint(model)
    path = golden_path(checkpoint)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, samples_BW=samples_BW, **compute(checkpoint, "float32", samples_BW)._asdict())
    return path


if __name__ == "__main__":
    from benchmarks.checkpoints import checkpoint_folder

    print(make_golden(checkpoint_folder(sys.argv[1])))
