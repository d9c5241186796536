"""An ONNX export of large-v3 holds one tensor at a time, whatever the precision."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_MEASURE = """
import dataclasses, json, sys, tempfile
from pathlib import Path

import numpy as np

from flax_distil.checkpoints.formats.files import CheckpointFiles, default_preprocessor
from flax_distil.checkpoints.formats.mapping import tensor_locations
from flax_distil.exporting.onnx.writer import write
from flax_distil.exporting.source import ExportSource
from flax_distil.model.config import PRESETS

LARGE = PRESETS["large-v3"]


def resident(field):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def source(layers):
    config = dataclasses.replace(LARGE, encoder_layers=layers, decoder_layers=layers)
    shapes = {name: one.shape for name, one in tensor_locations(config).items()}
    values = np.random.default_rng(0).normal(size=4096).astype(np.float16)
    files = CheckpointFiles(
        origin="random", config=config.to_huggingface(), generation_config={},
        preprocessor_config=default_preprocessor(128), tokenizer_config={}, tokenizer={},
    )
    return ExportSource(config, files, lambda name: np.resize(values, shapes[name]), shapes)


def peak(given, precision):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = resident("VmRSS")
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        write(given, Path(folder), quantization=precision)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.onnx*"))
    return {"peak": resident("VmHWM") - before, "size": size}


layers = int(sys.argv[3])
given = source(layers)
largest = max(2 * int(np.prod(shape)) for shape in given.shapes.values())
print(json.dumps({"largest": largest, **peak(given, sys.argv[2])}))
"""


def measure(folder: Path, precision: str, layers: int) -> dict[str, int]:
    """Return the bytes of the largest tensor, of the peak above what was there before, and of the files."""
    command = [sys.executable, "-c", _MEASURE, str(folder), precision, str(layers)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("precision", ["fp32", "q8"])
def test_a_layer_of_large_v3_needs_little_more_than_its_largest_tensor(tmp_path, precision):
    found = measure(tmp_path, precision, layers=1)
    assert found["peak"] < 1.3 * found["largest"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "q8"])
def test_all_of_large_v3_needs_little_more_than_its_largest_tensor(tmp_path, precision):
    found = measure(tmp_path, precision, layers=32)
    assert found["peak"] < 1.3 * found["largest"]


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
