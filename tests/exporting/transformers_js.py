"""Transformers.js in Node, installed once by npm, to run exports as browsers and servers do.

    python -m tests.exporting.transformers_js

installs it from ``tests/exporting/node/package-lock.json`` into the cache.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.real_checkpoints import CACHE

NODE = Path(__file__).parent / "node"


def skip_if_absent() -> None:
    """Skip a test where Node or npm is not installed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, which runs Transformers.js")


def ensure_installed() -> Path:
    """Install the packages of the lock file, unless they are there, and return their folder."""
    digest = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = CACHE / f"transformers_js-{digest}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(exist_ok=True)
    # Moved as a whole: two test runs may install it at once.
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, scratch)
        # Scripts would download libraries for GPUs; what runs on CPUs is in the packages.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=600)
        try:
            os.rename(scratch, folder)
        except OSError:  # another test run was faster
            if not folder.is_dir():
                raise
        Path(scratch).mkdir(exist_ok=True)
    return folder


def transcribe(
    model: Path, dtype: str, samples: Sequence[np.ndarray], folder: Path, **options: Any
) -> list[dict[str, Any]]:
    """Return what the speech recognition pipeline of Transformers.js says about each recording.

    Args:
        model: Folder of an ONNX export.
        dtype: ``fp32``, ``fp16`` or ``q8``.
        samples: Recordings at 16 kHz.
        folder: Where files for the other process may be written.
        options: Options of the pipeline's call, such as ``language``.
    """
    audio = []
    for index, samples_W in enumerate(samples):
        audio.append(str(folder / f"{index}.f32"))
        samples_W.astype("<f4").tofile(audio[-1])
    request = folder / "request.json"
    request.write_text(json.dumps({"model": str(model), "dtype": dtype, "audio": audio, "options": options}))
    command = ["node", str(NODE / "transcribe.mjs"), str(ensure_installed()), str(request)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


if __name__ == "__main__":
    print(ensure_installed())
