"""A pipeline over eight devices and over one; prints both results as JSON for ``test_pipeline.py``.

python pipeline_on_eight_devices.py CHECKPOINT
"""

import json
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2]))

from flax_distil import FlaxWhisperPipeline
from flax_distil.parallel.make_partitioner import single_device
from tests.long_recording import long_recording


def main() -> None:
    samples = long_recording(60.0)[0]
    # Eleven chunks in the first call, and nine recordings in the second: neither fills batches of eight.
    recordings = [samples[start * 16000 : (start + 6) * 16000] for start in range(0, 54, 6)]
    found = {}
    for name, partitioner in {"one": single_device(), "eight": None}.items():
        pipeline = FlaxWhisperPipeline(sys.argv[1], partitioner=partitioner, batch_size=8, max_new_tokens=60)
        found[name] = {
            "chunked": pipeline(samples, chunk_length_s=12.0, stride_length_s=2.0, return_timestamps=True),
            "short": pipeline(recordings),
        }
    assert len(jax.devices()) == 8
    print(json.dumps(found))


if __name__ == "__main__":
    main()
