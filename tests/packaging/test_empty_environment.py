"""The wheel in an environment of its own, without torch: every stage runs on real weights and real speech."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flax_distil.exporting.format_table import FORMATS
from tests.toys import write_prompts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / ("ci.txt" if sys.version_info < (3, 12) else "ci-newest.txt")
MEGABYTES = 1200
"""Bound on what an installation takes, without byte code. jax and datasets alone take 755 MB."""


class Environment:
    """A virtual environment with the wheel and what it requires."""

    def __init__(self, folder: Path, wheel: Path):
        self.folder, self.wheel = folder, wheel
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.install()

    def install(self, extra: str = "") -> None:
        """Install the wheel, with an extra in brackets or without."""
        pip = [self.folder / "bin" / "pip", "install", "--quiet", "--no-compile", "-c", LOCK]
        subprocess.run([*pip, f"{self.wheel}{extra}"], check=True)

    def run(self, *arguments: object, status: int = 0) -> str:
        """Run ``flax-distil`` outside the sources and return what it printed, errors last."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "FLAX_DISTIL", "XLA_", "JAX_"))
        }
        cache = {"FLAX_DISTIL_COMPILATION_CACHE": str(self.folder / "programs"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [self.folder / "bin" / "flax-distil", *map(str, arguments)],
            cwd=self.folder,
            env=kept | cache | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    @property
    def megabytes(self) -> dict[str, float]:
        """Size of each package, by its name, the largest first; pip is left out."""
        (site,) = self.folder.glob("lib/python*/site-packages")
        sizes = {}
        for package in importlib.metadata.distributions(path=[str(site)]):
            paths = (Path(package.locate_file(file)) for file in package.files or ())
            files = [path for path in paths if path.suffix != ".pyc" and path.is_file()]
            sizes[package.name] = sum(path.stat().st_size for path in files) / 1e6
        sizes.pop("pip")
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))


@pytest.fixture(scope="module")
def environment(distributions, tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("empty") / "environment", distributions.wheel)


@pytest.fixture(scope="module")
def prompts(prompts_dir, tmp_path_factory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("prompts"), prompts_dir)


def flags(**values: object) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def test_it_brings_no_torch_and_its_size_is_bounded(environment, capsys):
    sizes = environment.megabytes
    assert not {"torch", "triton", "silero-vad", "openai-whisper"} & set(sizes)
    with capsys.disabled():
        largest = ", ".join(f"{name} {size:.0f}" for name, size in list(sizes.items())[:8])
        print(f"\n{len(sizes)} packages, {sum(sizes.values()):.0f} MB: {largest}")
    assert sum(sizes.values()) < MEGABYTES


def test_every_stage_runs(environment, prompts, tiny_en_dir, prompts_dir, tmp_path):
    labels, student, report = (tmp_path / name for name in ("labels", "student", "report"))
    speech = prompts_dir / "validation" / "conf-full.ogg"
    said = environment.run(
        "transcribe", speech, *flags(model=tiny_en_dir, output_format="txt", output_dir=tmp_path / "text")
    )
    assert "conference" in said.lower()
    environment.run(
        "pseudo-label",
        *flags(model=tiny_en_dir, dataset_name=prompts, output_dir=labels, generation_max_length=32),
    )
    environment.run(
        "distil",
        *flags(teacher=tiny_en_dir, train_dataset_name=labels, student_decoder_layers=2, max_steps=2),
        *flags(per_device_train_batch_size=2, warmup_steps=1, logging_steps=1, output_dir=student),
    )
    losses = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses if "loss" in line] == [1, 2]
    models = f"{tiny_en_dir}+{student}"
    environment.run(
        "eval",
        *flags(
            model=models, dataset_name=prompts, max_samples=4, generation_max_length=32, output_dir=report
        ),
    )
    assert len(json.loads((report / "results.json").read_text())["models"]) == 2
    names = [name for name, format in FORMATS.items() if format.package is None]
    environment.run("export", *flags(model=student, format=",".join(names), output_dir=tmp_path / "exports"))
    assert {path.name for path in (tmp_path / "exports").iterdir() if path.is_dir()} == set(names)
    assert {"hf", "ggml", "openai", "mlx"} <= set(names)


def test_a_format_whose_package_is_missing_is_refused_in_one_sentence(environment, tiny_en_dir, tmp_path):
    said = environment.run(
        "export", *flags(model=tiny_en_dir, format="ct2", output_dir=tmp_path / "ct2"), status=2
    )
    assert re.fullmatch(r'error: .*run pip install "flax-distil\[ctranslate2\]".*\n', said)


def test_the_extra_for_voice_activity_brings_no_torch(environment, tiny_en_dir, prompts_dir, tmp_path):
    transcribe = [
        "transcribe", prompts_dir / "validation" / "conf-full.ogg",
        *flags(model=tiny_en_dir, mode="sequential", vad="silero", output_dir=tmp_path),
    ]  # fmt: skip
    assert "run pip install 'flax-distil[vad]'" in environment.run(*transcribe, status=2)
    environment.install("[vad]")
    assert "torch" not in environment.megabytes
    assert "conference" in environment.run(*transcribe).lower()
