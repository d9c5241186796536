"""Streams of windows under layouts of eight devices; prints JSON for ``test_streams.py``.

python streams_on_eight_devices.py FOLDER_OF_A_TOKENIZER
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from flax_distil.model.assembly import whisper_shapes
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.transcription.assisted_generator import Assistant, AssistedGenerator
from flax_distil.transcription.decoding_request import DecodingRequest
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.window_stream import EncodedBatch, WindowStream
from tests.parallel.layouts import LAYOUTS, SPEAKING, config, partitioner_for, random_params, speaker, tones

STREAMED = ("pmap×8", "fsdp×8", "tensor×2·data×4")
ROWS = (16, 16, 8)  # of each batch; two windows per device, and then one
ASSISTANT = dataclasses.replace(SPEAKING, decoder_layers=2)


def assisted(plain: WhisperGenerator) -> AssistedGenerator:
    """Return the same model with another that drafts for it."""
    partitioner = plain.partitioner
    specs = partitioner.weight_specs(whisper_shapes(ASSISTANT))
    assistant = Assistant(
        config=ASSISTANT,
        params=partitioner.device_put(random_params(ASSISTANT, 4), specs),
        tokenizer=plain.tokenizer,
    )
    return AssistedGenerator(
        plain.config, plain.params, plain.tokenizer, plain.settings, assistant=assistant,
        options=plain.options, compute=plain.shape.compute, partitioner=partitioner,
    )  # fmt: skip


def streamed(generator: WhisperGenerator) -> dict[str, Any]:
    """Decode windows of very different numbers of tokens, in a stream and batch by batch."""
    prompt, temperature = generator.prompts.build("en"), generator.options.temperatures[0]
    encoded, number = [], 0
    for rows in ROWS:
        requests: list[DecodingRequest | None] = []
        for _ in range(rows):
            limit = (8, 1, 3, 0, 5)[number % 5]
            requests.append(DecodingRequest(prompt=prompt, limit=limit, temperature=temperature, seed=number))
            number += 1
        requests[2] = None
        samples = np.roll(tones(), rows + number, axis=0)[np.arange(rows) % 8]
        encoded.append(EncodedBatch(rows, generator.encode_samples(samples), requests))
    found = list(WindowStream(generator).decode(encoded, lambda _, results: results))
    ran = dataclasses.asdict(generator.row_steps)
    whole = [generator.collect(generator.dispatch(batch.encoder_out, batch.requests)) for batch in encoded]
    return {
        name: [[result and list(result.tokens) for result in batch] for batch in batches]
        for name, batches in (("stream", found), ("whole", whole))
    } | {"row_steps": ran}


def main() -> None:
    folder = Path(sys.argv[1])
    partitioners: dict[str, Partitioner] = {"one": single_device()} | {
        name: partitioner_for(config(freeze_encoder=True, **LAYOUTS[name])) for name in STREAMED
    }
    said: dict[str, Any] = {"greedy": {}, "samples": {}, "assistant": {}}
    for name, partitioner in partitioners.items():
        plain = speaker(partitioner, folder).generator
        said["greedy"][name] = streamed(plain)
        said["assistant"][name] = streamed(assisted(plain))
        said["samples"][name] = streamed(speaker(partitioner, folder, temperature=(0.9,)).generator)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
