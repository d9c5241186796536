"""The source archive and the wheel, built once from a copy of the sources."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_SOURCES = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "outputs", "runs", "node_modules"
)


@dataclasses.dataclass(frozen=True)
class Distributions:
    """What is published."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def distributions(tmp_path_factory) -> Distributions:
    """Built as ``make dist`` does, but with the setuptools of this environment."""
    sources, out = tmp_path_factory.mktemp("sources") / "flax_distil", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, sources, ignore=NO_SOURCES)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Distributions(sdist=sdist, wheel=wheel)
