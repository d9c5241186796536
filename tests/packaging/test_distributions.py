"""The source archive and the wheel hold all that belongs to them, and say what they need."""

import email
import email.message
import tarfile
import zipfile
from pathlib import Path

import pytest

import flax_distil

ROOT = Path(__file__).parents[2]
CODE = {".pyc", ".pyo"}


@pytest.fixture(scope="module")
def in_wheel(distributions) -> set[str]:
    with zipfile.ZipFile(distributions.wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def metadata(distributions) -> email.message.Message:
    with zipfile.ZipFile(distributions.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def files_below(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in CODE)
    return {str(path.relative_to(ROOT)) for path in paths}


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(in_wheel):
    """A kind of file that is new in the package has to be named in ``package_data`` of ``setup.py``."""
    assert {name for name in in_wheel if ".dist-info/" not in name} == files_below(ROOT / "flax_distil")


def test_the_source_archive_can_run_the_tests_and_build_the_documentation(distributions):
    with tarfile.open(distributions.sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    wanted = {
        "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "mkdocs.yml", "pyproject.toml",
        "setup.py", "run_distillation.py", "requirements/ci.txt", "requirements/ci-newest.txt",
    }  # fmt: skip
    folders = ("flax_distil", "tests", "docs", "examples", "scripts", "benchmarks")
    assert wanted.union(*(files_below(ROOT / folder) for folder in folders)) <= found


def test_version_and_licenses_are_those_of_the_sources(distributions, metadata, in_wheel):
    version = flax_distil.__version__
    assert metadata["Version"] == version
    assert distributions.sdist.name == f"flax_distil-{version}.tar.gz"
    assert metadata["License-Expression"] == "MIT"
    licenses = {"LICENSE", "flax_distil/audio/silero/LICENSE"}
    assert set(metadata.get_all("License-File")) == licenses
    assert {f"flax_distil-{version}.dist-info/licenses/{name}" for name in licenses} <= in_wheel


def test_the_wheel_is_described_by_the_readme(metadata):
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_torch_is_needed_for_the_tests_alone(metadata):
    torch = ("torch", "silero-vad", "openai-whisper", "mlx-whisper", "peft")  # the others require it
    needed = [line for line in metadata.get_all("Requires-Dist") if line.startswith(torch)]
    assert {line.partition("extra == ")[2].strip('"') for line in needed} == {"dev"}
