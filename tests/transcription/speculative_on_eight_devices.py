"""What a model with an assistant says under layouts of eight devices; prints JSON.

python speculative_on_eight_devices.py FOLDER_OF_A_TOKENIZER
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax

from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.assisted_generator import Assistant, AssistedGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.short_form import ShortFormTranscriber
from tests.parallel.layouts import (
    COMPILED_MOST,
    LAYOUTS,
    SPEAKING,
    config,
    partitioner_for,
    random_params,
    tones,
    transcribe,
)

ASSISTANT = dataclasses.replace(SPEAKING, d_model=16, decoder_layers=2)


def transcribe_with_assistant(partitioner, folder: Path) -> list[list[int]]:
    """Return the tokens that the random model of ``transcribe`` says with another drafting for it."""
    tokenizer = WhisperTokenizer.from_pretrained(folder)

    def put(shape, seed):
        return partitioner.device_put(
            random_params(shape, seed), partitioner.weight_specs(whisper_shapes(shape))
        )

    assistant = Assistant(config=ASSISTANT, params=put(ASSISTANT, 4), tokenizer=tokenizer)
    generator = AssistedGenerator(
        SPEAKING, put(SPEAKING, 3), tokenizer, GenerationSettings.from_folder(folder, tokenizer.special),
        assistant=assistant, options=TranscriptionOptions(max_new_tokens=8), compute=ComputeOptions(),
        partitioner=partitioner,
    )  # fmt: skip
    return [transcript.tokens for transcript in ShortFormTranscriber(generator).transcribe(tones())]


def main() -> None:
    folder = Path(sys.argv[1])
    said = {"alone": [tokens for tokens, _ in transcribe(single_device(), folder, tones())]}
    said["one"] = transcribe_with_assistant(single_device(), folder)
    for name in COMPILED_MOST:
        partitioner = partitioner_for(config(freeze_encoder=True, **LAYOUTS[name]))
        said[name] = transcribe_with_assistant(partitioner, folder)
    assert len(jax.devices()) == 8
    print(json.dumps(said))


if __name__ == "__main__":
    main()
