"""What we say ourselves to the recordings of a verification: texts, tokens and logits in float32."""

import dataclasses
import functools
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.arrays import Array, Float, Int, Params
from flax_distil.exporting.verification.runtime import MAX_NEW_TOKENS, Clip
from flax_distil.model.assembly import bind_decoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.pipeline.inputs.find_inputs import find_inputs
from flax_distil.transcription.decoding_request import DecodingRequest
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions

log = logging.getLogger(__name__)

_CLIPS_WITH_LOGITS = 8  # a program encodes a clip again for them
_COMPARED = 64  # tokens of a transcript along which logits are compared
_LENGTHS = (32, 64, 128, 256)
"""Numbers of tokens that sequences are padded to, so that few are compiled."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Expected:
    """A clip, and what this package makes of it.

    Attributes:
        clip: The clip.
        text: Its transcript without white space around it.
        tokens: The first tokens of the transcript.
        logits_TV: Logits behind the prompt and behind each token; None for all but the first clips.
    """

    clip: Clip
    text: str
    tokens: tuple[int, ...]
    logits_TV: Float[np.ndarray, "T V"] | None = dataclasses.field(repr=False)


def read_recordings(names: Sequence[str], window_samples: int) -> dict[str, Float[np.ndarray, " _"]]:
    """Read the recordings of a verification; of long ones the first window.

    Args:
        names: Files, folders and patterns, as ``transcribe`` takes them.
        window_samples: Number of samples of a window.

    Raises:
        InputError: If there is nothing of a name.
        AudioError: If a recording cannot be read.
    """
    found = {}
    for one in find_inputs(names, recursive=False):
        samples_W = decode_audio(one.given)
        if len(samples_W) > window_samples:
            seconds = window_samples / SAMPLING_RATE
            log.warning("of %s the first %g s are verified", one.given, seconds)
        found[one.given] = samples_W[:window_samples]
    return found


def expect(checkpoint: Checkpoint, recordings: dict[str, Float[np.ndarray, " _"]]) -> list[Expected]:
    """Transcribe recordings greedily, and compute the logits along their transcripts.

    Args:
        checkpoint: The model, in float32.
        recordings: Samples by name, of at most one window.

    Raises:
        InputError: If the checkpoint has no tokenizer.
    """
    tokenizer, settings = read_tokenizer(checkpoint.files)
    limit = min(MAX_NEW_TOKENS, checkpoint.config.max_target_positions - 8)
    options = TranscriptionOptions(return_timestamps=False, max_new_tokens=limit)
    generator = WhisperGenerator(
        checkpoint.config, checkpoint.params, tokenizer, settings, options=options, compute=ComputeOptions()
    )
    return [
        _expect_clip(generator, name, samples_W, with_logits=index < _CLIPS_WITH_LOGITS)
        for index, (name, samples_W) in enumerate(recordings.items())
    ]


def _expect_clip(
    generator: WhisperGenerator, name: str, samples_W: Float[np.ndarray, " _"], *, with_logits: bool
) -> Expected:
    padded_BW = np.zeros((1, generator.config.window_samples), np.float32)
    padded_BW[0, : len(samples_W)] = samples_W
    encoder_out = generator.encode_samples(padded_BW)
    language = generator.options.language
    if language is None and generator.tokenizer.special.is_multilingual:
        probabilities = generator.language_probabilities(encoder_out)[0]
        language = max(probabilities, key=probabilities.__getitem__)
    prompt = tuple(generator.prompts.build(language or "en"))
    request = DecodingRequest(prompt=prompt, limit=None, temperature=0.0)
    result = generator.collect(generator.dispatch(encoder_out, [request]))[0]
    assert result is not None
    given = language if generator.tokenizer.special.is_multilingual else None
    tokens, logits_TV = result.tokens[:_COMPARED], None
    if with_logits:
        logits_TV = _logits(generator, encoder_out["encoder_out_BSD"], prompt, tokens)
    return Expected(
        clip=Clip(name=name, samples_W=samples_W, language=given, prompt=prompt),
        text=generator.tokenizer.decode(result.tokens).strip(),
        tokens=tokens,
        logits_TV=logits_TV,
    )


def _logits(
    generator: WhisperGenerator, encoder_out_BSD: Array, prompt: Sequence[int], tokens: Sequence[int]
) -> Float[np.ndarray, "T V"]:
    sequence = [*prompt, *tokens]
    longest = generator.config.max_target_positions
    length = next((size for size in _LENGTHS if len(sequence) <= size < longest), longest)
    tokens_BT = np.zeros((1, length), np.int32)
    tokens_BT[0, : len(sequence)] = sequence
    logits_TV = _forward(
        generator.config, generator.params["decoder"], jnp.asarray(tokens_BT), encoder_out_BSD
    )
    return np.asarray(logits_TV)[len(prompt) - 1 : len(sequence)]


@functools.partial(jax.jit, static_argnums=0)
def _forward(
    config: WhisperConfig,
    decoder: Params,
    tokens_BT: Int[Array, "1 T"],
    encoder_out_BSD: Float[Array, "1 S D"],
) -> Float[Array, "T V"]:
    module = bind_decoder(config, ComputeOptions(), decoder)
    return module.logits(module(tokens_BT, encoder_out_BSD).hidden_BTD)[0]
