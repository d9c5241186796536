"""Size, time and memory of exporting a model of large-v3's shapes to every format.

    python -m benchmarks.exports                       # every format of the table
    python -m benchmarks.exports ct2:int8 ggml:q5_0

The weights are random float16, written in shards a tensor at a time, since a real large-v3 is 3 GB to
download. Each export runs in a process of its own, whose memory Linux measures: the most it ever had, and the
most that it had above what it took to import everything and to open the checkpoint. Neither the file that is
read nor the one that is written is in memory, so the bar of 1.3 times the largest tensor is for the latter.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import write_checkpoint
from flax_distil.checkpoints.formats.mapping import tensor_locations
from flax_distil.model.config import PRESETS
from tests.real_checkpoints import CHECKPOINTS, ensure_checkpoints

EVERY = (
    "hf:float16", "hf:bfloat16", "hf:float32", "ct2:float16", "ct2:int8", "ggml:f16", "ggml:q8_0",
    "ggml:q5_0", "openai:float16", "onnx:fp32", "onnx:q8", "mlx:float16", "mlx:q4",
)  # fmt: skip

_CHILD = """
import importlib, json, resource, sys, time
from pathlib import Path
import jax
from flax_distil.exporting.format_table import FORMATS
from flax_distil.exporting.source import ExportSource

source, folder, name, quantization = sys.argv[1:]
writer, package = FORMATS[name].writer, FORMATS[name].package
if package is not None:
    importlib.import_module(package)
opened = ExportSource.from_files(source)
opened.read("model.decoder.layer_norm.bias")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


before, start = resident("VmRSS"), time.perf_counter()
writer.write(opened, Path(folder), quantization=quantization)
seconds = time.perf_counter() - start
print(json.dumps({
    "seconds": seconds,
    "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    "above": resident("VmHWM") - before,
}))
"""


def write_model(folder: Path, preset: str) -> int:
    """Write a random model of a published architecture; return the bytes of its largest tensor in float16.

    Its tokenizer is that of base, whose vocabulary it gets: one token less than that of large-v3.
    """
    ensure_checkpoints(("base",))
    base = load_checkpoint(CHECKPOINTS / "whisper-base", config_only=True)
    config, files = dataclasses.replace(PRESETS[preset], vocab_size=base.config.vocab_size), base.files
    files = dataclasses.replace(files, config={**files.config, **config.to_huggingface()})
    shapes = {name: location.shape for name, location in tensor_locations(config).items()}
    generator = np.random.default_rng(0)

    def read(name: str) -> np.ndarray:
        if name == "model.encoder.embed_positions.weight":
            return sinusoids(*shapes[name])
        return (0.02 * generator.standard_normal(shapes[name], np.float32)).astype(np.float16)

    write_checkpoint(read, config, folder, files=files, max_shard_size=10**9)
    return max(2 * int(np.prod(shape)) for shape in shapes.values())


def sinusoids(length: int, width: int) -> np.ndarray:
    """The encoder's positions, which mlx-whisper computes itself and compares."""
    rates = np.exp(-np.log(10000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float16)


def measure(source: Path, choice: str) -> dict[str, float]:
    name, _, quantization = choice.partition(":")
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, "-c", _CHILD, str(source), folder, name, quantization]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {**json.loads(found.stdout.splitlines()[-1]), "size": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("choices", nargs="*", default=EVERY, metavar="FORMAT:QUANTIZATION")
    parser.add_argument("--preset", default="large-v3", choices=sorted(PRESETS))
    parser.add_argument("--folder", help="keep the random model here, and use one that is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(arguments.folder or scratch) / arguments.preset
        largest = 2 * PRESETS[arguments.preset].vocab_size * PRESETS[arguments.preset].d_model
        if not (source / "config.json").is_file():
            largest = write_model(source, arguments.preset)
        print(f"largest tensor: {largest / 1e6:.0f} MB in float16")
        print("| format | size | time | peak memory | above the start |\n|---|---|---|---|---|")
        for choice in arguments.choices:
            found = measure(source, choice)
            cells = [
                f"{found['size'] / 1e6:,.0f} MB",
                f"{found['seconds']:.0f} s",
                f"{found['peak'] / 1e6:.0f} MB",
                f"{found['above'] / 1e6:.0f} MB ({found['above'] / largest:.2f} of the largest tensor)",
            ]
            print(f"| {choice} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
