"""Searches under layouts of eight devices; prints JSON for ``test_searches.py``.

python searches_on_eight_devices.py FOLDER_OF_A_TOKENIZER
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from flax_distil.decoding.options import SearchOptions
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.transcription.decoding_request import DecodingRequest
from tests.parallel.layouts import LAYOUTS, config, partitioner_for, speaker, tones

SEARCHED = ("data×8", "tensor×2·data×4")
SEARCHES: dict[str, dict[str, Any]] = {
    "beams": {"search": SearchOptions(num_beams=3), "return_timestamps": True},
    "samples": {"search": SearchOptions(best_of=2, top_k=40, top_p=0.95), "temperature": (0.9,)},
}
IDLE = 3  # rows at the end of the batch


def searched(partitioner: Partitioner, folder: Path, options: dict[str, Any]) -> list[list[int] | None]:
    """Decode a batch whose last rows are idle; each row has its own limit and seed."""
    generator = speaker(partitioner, folder, **options).generator
    samples = tones()
    prompt = generator.prompts.build("en")
    requests: list[DecodingRequest | None] = [
        DecodingRequest(
            prompt=prompt, limit=8 - row % 2, temperature=generator.options.temperatures[0], seed=row
        )
        for row in range(len(samples) - IDLE)
    ]
    results = generator.collect(
        generator.dispatch(generator.encode_samples(samples), requests + [None] * IDLE)
    )
    return [None if result is None else list(result.tokens) for result in results]


def fallen_back(partitioner: Partitioner, folder: Path, threshold: float) -> list[tuple[float, list[int]]]:
    """Transcribe with a threshold that some rows fail."""
    transcriber = speaker(partitioner, folder, temperature=(0.0, 0.9), logprob_threshold=threshold)
    return [(transcript.temperature, transcript.tokens) for transcript in transcriber.transcribe(tones())]


def main() -> None:
    folder = Path(sys.argv[1])
    partitioners = {"one": single_device()} | {
        name: partitioner_for(config(freeze_encoder=True, **LAYOUTS[name])) for name in SEARCHED
    }
    scores = sorted(one.avg_logprob for one in speaker(partitioners["one"], folder).transcribe(tones()))
    threshold = (scores[3] + scores[4]) / 2
    found: dict[str, Any] = {
        name: {layout: searched(partitioner, folder, options) for layout, partitioner in partitioners.items()}
        for name, options in SEARCHES.items()
    }
    found["fallback"] = {
        layout: fallen_back(partitioner, folder, threshold) for layout, partitioner in partitioners.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
