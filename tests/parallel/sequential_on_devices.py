"""Long recordings on eight devices and on one, in a process that has them; prints JSON for its test.

python sequential_on_devices.py FOLDER_OF_TINY_EN
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.core.errors import InputError
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.config import MeshShape
from flax_distil.parallel.make_partitioner import make_partitioner, single_device
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.sequential.transcriber import SequentialTranscriber
from tests.long_recording import long_recording

SECONDS = (5, 33, 8, 21, 3, 40, 9, 12, 6, 31, 7)
"""More than eight, and a ragged end."""


def transcriber(folder: Path, partitioner: Partitioner, batch_size: int) -> SequentialTranscriber:
    checkpoint, tokenizer = load_checkpoint(folder), WhisperTokenizer.from_pretrained(folder)
    generator = WhisperGenerator(
        checkpoint.config,
        partitioner.device_put(
            checkpoint.params, partitioner.weight_specs(whisper_shapes(checkpoint.config))
        ),
        tokenizer,
        GenerationSettings.from_folder(folder, tokenizer.special),
        options=TranscriptionOptions(return_timestamps=True, no_speech_threshold=0.6, logprob_threshold=-1.0),
        compute=ComputeOptions(),
        partitioner=partitioner,
    )
    return SequentialTranscriber(generator, batch_size=batch_size)


def transcribe(folder: Path, partitioner: Partitioner, batch_size: int) -> list[list[int]]:
    samples, _ = long_recording(60)
    pieces = [samples[16_000 * n :][: 16_000 * length] for n, length in enumerate(SECONDS)]
    found = dict(transcriber(folder, partitioner, batch_size).transcribe_recordings(enumerate(pieces)))
    return [found[n].tokens for n in range(len(SECONDS))]


def refusal(folder: Path, partitioner: Partitioner) -> str:
    try:
        transcriber(folder, partitioner, 12)
    except InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    eight = make_partitioner("jit", MeshShape.parse("data=8"))
    results: dict[str, Any] = {
        "one": transcribe(folder, single_device(), 2),
        "data×8": transcribe(folder, eight, 8),
        "refusal": refusal(folder, eight),
    }
    print(json.dumps(results))
