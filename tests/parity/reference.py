"""The same checkpoint and the same recordings in transformers (PyTorch) and in our own code."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.mel import log_mel
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.core.arrays import Array, Params
from flax_distil.model.assembly import bind_encoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.short_form import ShortFormTranscriber

torch.set_num_threads(2)  # more threads than there are cores cost a third of the speed

BATCH = 40  # rows decoded at once


@dataclasses.dataclass(frozen=True)
class Pair:
    """One checkpoint in both frameworks, float32."""

    folder: Path
    ours: Checkpoint
    theirs: WhisperForConditionalGeneration
    tokenizer: WhisperTokenizer

    @classmethod
    def open(cls, folder: Path) -> "Pair":
        theirs = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        return cls(folder, load_checkpoint(folder), theirs, WhisperTokenizer.from_pretrained(folder))

    @property
    def settings(self) -> GenerationSettings:
        return GenerationSettings.from_folder(self.folder, self.tokenizer.special)


@dataclasses.dataclass(frozen=True)
class Recordings:
    """Samples, what is said in them, and their features as transformers computes them."""

    samples_BW: np.ndarray
    texts: list[str]
    features_BMR: torch.Tensor

    @classmethod
    def read(cls, folder: Path) -> "Recordings":
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        samples = [decode_audio(folder / row["file_name"]) for row in rows]
        features = WhisperFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt").input_features
        return cls(np.stack([pad_or_trim(s) for s in samples]), [row["text"] for row in rows], features)

    def take(self, rows: list[int]) -> "Recordings":
        return Recordings(self.samples_BW[rows], [self.texts[row] for row in rows], self.features_BMR[rows])

    def of_all_lengths(self, count: int) -> "Recordings":
        """Return ``count`` of them, from the shortest text to the longest."""
        order = sorted(range(len(self.texts)), key=lambda row: len(self.texts[row]))
        return self.take([order[i] for i in np.linspace(0, len(order) - 1, count, dtype=int)])

    def batches(self) -> list["Recordings"]:
        rows = list(range(len(self.texts)))
        return [self.take(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]


def _encode(config: WhisperConfig, encoder: Params, samples_BW: Array) -> Array:
    return bind_encoder(config, ComputeOptions(use_scan=True), encoder)(log_mel(samples_BW, num_mel_bins=80))[
        0
    ]


encode = jax.jit(_encode, static_argnums=0)
"""From samples to encoder states, the whole way in our own code."""


def our_tokens(
    pair: Pair, recordings: Recordings, *, language: str | None = None, max_new_tokens: int | None = None
) -> dict[bool, list[list[int]]]:
    """Greedy tokens of every recording without (False) and with (True) timestamps, from one encoding."""
    found: dict[bool, list[list[int]]] = {False: [], True: []}
    transcribers = {
        timestamps: ShortFormTranscriber(WhisperGenerator(
            pair.ours.config, pair.ours.params, pair.tokenizer, pair.settings,
            options=TranscriptionOptions(
                language=language, return_timestamps=timestamps, max_new_tokens=max_new_tokens
            ),
            compute=ComputeOptions(),
        ))
        for timestamps in found
    }  # fmt: skip
    for batch in recordings.batches():
        encoder_out_BSD = encode(pair.ours.config, pair.ours.params["encoder"], batch.samples_BW)
        for timestamps, transcriber in transcribers.items():
            transcripts = transcriber.collect(
                transcriber.dispatch_encoded({"encoder_out_BSD": encoder_out_BSD}, rows=len(encoder_out_BSD))
            )
            found[timestamps] += [transcript.tokens for transcript in transcripts]
    return found


@torch.no_grad()
def their_tokens(
    pair: Pair, recordings: Recordings, *, language: str | None = None, max_new_tokens: int | None = None
) -> dict[bool, list[list[int]]]:
    """The same from transformers' ``generate``.

    ``force_unique_generate_call``: with timestamps it would otherwise transcribe short audio as it does
    long audio, and decode again behind the last timestamp. Everything else is ``generate`` as documented.
    """
    found: dict[bool, list[list[int]]] = {False: [], True: []}
    end = pair.tokenizer.special.eot
    given = {} if language is None else {"language": language, "task": "transcribe"}
    if max_new_tokens is not None:
        given["max_new_tokens"] = max_new_tokens
    for batch in recordings.batches():
        states = pair.theirs.model.encoder(batch.features_BMR).last_hidden_state
        for timestamps, rows in found.items():
            sequences = pair.theirs.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=states), return_timestamps=timestamps,
                force_unique_generate_call=True, return_dict_in_generate=True, do_sample=False, num_beams=1,
                **given,
            ).sequences.tolist()  # fmt: skip
            prompt = pair.tokenizer.prompt(language, "transcribe", timestamps)
            for sequence in sequences:
                assert sequence[: len(prompt)] == prompt
                emitted = sequence[len(prompt) :]
                rows.append(emitted[: emitted.index(end)] if end in emitted else emitted)
    return found
