"""Exports in ONNX Runtime, which Transformers.js and Optimum run them with."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from flax_distil.audio.mel import log_mel
from flax_distil.core.arrays import Float
from flax_distil.exporting.onnx.precision import PRECISIONS
from flax_distil.exporting.onnx.session import Cache, OnnxSession
from flax_distil.exporting.verification.runtime import MAX_NEW_TOKENS, Clip
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer


def open_runtime(folder: Path, precision: str | None = None) -> "OnnxRuntime":
    """Load an export on the CPU.

    Args:
        folder: Folder of the export.
        precision: fp32, fp16 or q8; by default the first of them that it has.
    """
    found = precision or next(name for name in PRECISIONS if OnnxSession.is_in(folder, name))
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    settings = GenerationSettings.from_folder(folder, tokenizer.special)
    return OnnxRuntime(session=OnnxSession.open(folder, found), tokenizer=tokenizer, settings=settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxRuntime:
    """Greedy decoding with an ONNX export.

    Attributes:
        session: The models.
        tokenizer: Tokenizer of the export.
        settings: Generation settings of the export.
    """

    session: OnnxSession
    tokenizer: WhisperTokenizer
    settings: GenerationSettings

    def transcribe(self, clip: Clip) -> str:
        """See ``Runtime``."""
        return self.tokenizer.decode(self.tokens(clip))

    def tokens(self, clip: Clip) -> list[int]:
        """Return the tokens of a clip's transcript, without those of its prompt."""
        tokens: list[int] = []
        for logits_V in self._steps(clip, tokens):
            token = int(self._allowed(logits_V, first=not tokens).argmax())
            if token == self.tokenizer.special.eot:
                break
            tokens.append(token)
        return tokens

    def logits(self, clip: Clip, tokens: Sequence[int]) -> Float[np.ndarray, "T V"]:
        """See ``Runtime``; the prompt is read in the first step, and then one token in each."""
        steps = self._steps(clip, tokens)
        rows = [next(steps) for _ in range(len(tokens) + 1)]
        return np.stack(rows)

    def _steps(self, clip: Clip, tokens: Sequence[int]) -> Iterator[Float[np.ndarray, " V"]]:
        """Yield the logits behind the prompt and behind each of the tokens, which may grow meanwhile."""
        encoder_out_BSD = self.session.encode(self.features(clip))
        cache: Cache = {}
        following = list(clip.prompt)
        room = self.settings.max_length - len(clip.prompt)
        for index in range(min(MAX_NEW_TOKENS, room)):
            logits_BTV, cache = self.session.step(np.array([following]), encoder_out_BSD, cache)
            yield logits_BTV[0, -1]
            following = list(tokens[index : index + 1])

    def _allowed(self, logits_V: Float[np.ndarray, " V"], *, first: bool) -> Float[np.ndarray, " V"]:
        special, settings = self.tokenizer.special, self.settings
        logits_V[list(settings.suppress_tokens)] = -np.inf
        logits_V[special.no_timestamps + 1 : special.timestamp_end] = -np.inf
        if first:
            logits_V[list(settings.begin_suppress_tokens)] = -np.inf
        return logits_V

    def features(self, clip: Clip) -> Float[np.ndarray, "1 M R"]:
        """Return the log-mel features of a clip."""
        _, mel_bins, frames = self.session.features_shape
        samples_BW = np.zeros((1, 160 * frames), np.float32)
        samples_BW[0, : len(clip.samples_W)] = clip.samples_W
        features_BRM = log_mel(jnp.asarray(samples_BW), num_mel_bins=mel_bins)
        return np.asarray(features_BRM).transpose(0, 2, 1)
