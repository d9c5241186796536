"""The public names of the package: each is there, typed, and imported only when it is asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flax_distil

ROOT = Path(__file__).parent.parent

SCRIPT = """
from pathlib import Path
from typing import assert_type
from flax_distil.storage.paths import AnyPath

import flax_distil
from flax_distil import (
    DistillConfig, EvalConfig, ExportConfig, FlaxWhisperPipeline, InitStudentConfig, InputError, ModelSource,
    Pipeline, PseudoLabelConfig, TranscribeConfig, build, distill, evaluate, export, init_student,
    load_checkpoint, pseudo_label, transcribe, write_transcript,
)

pipeline: Pipeline = FlaxWhisperPipeline(ModelSource(name="student"), batch_size=8)
result = pipeline("talk.mp3", return_segments=True)
assert isinstance(result, dict)
assert_type(write_transcript(result, "talk.srt"), Path)
config = build(DistillConfig, teacher_model_name_or_path="t", train_dataset_name="d", output_dir="o")
assert_type(config, DistillConfig)
assert_type(distill(config).output_dir, AnyPath)
labels = pseudo_label(build(PseudoLabelConfig, model_name_or_path="t", dataset_name="d", output_dir="o"))
assert_type(labels.output_dir, AnyPath)
evaluate(build(EvalConfig, model_name_or_path="t", dataset_name="d"))
export(build(ExportConfig, model_name_or_path="m", output_dir="o"))
init_student(build(InitStudentConfig, teacher_model_name_or_path="t", output_dir="o"))
assert_type(transcribe(build(TranscribeConfig, files=["a.wav"], model_name_or_path="m")).written, list[Path])
load_checkpoint("student", config_only=True).config.vocab_size
InputError("no").args
pipeline.no_such_method()
flax_distil.no_such_name
"""


@pytest.mark.parametrize("name", flax_distil.__all__)
def test_every_public_name_is_there(name):
    assert getattr(flax_distil, name) is not None
    assert name in dir(flax_distil)


def test_names_of_type_checkers_are_the_names_at_run_time():
    tree = ast.parse(Path(flax_distil.__file__).read_text())
    block, _ = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.asname or alias.name: f"{node.module.removeprefix('flax_distil.')}:{alias.name}"
        for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert typed == flax_distil._ADDRESSES
    assert set(typed) | {"__version__"} == set(flax_distil.__all__)


def test_importing_the_package_loads_no_jax_and_no_data_sets():
    code = "import flax_distil, sys; print(*sorted({'jax', 'datasets', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == ""


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = flax_distil.no_such_name


@pytest.mark.slow
def test_the_public_names_are_typed(tmp_path):
    """A type checker knows every name and refuses those that do not exist."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}", str(script)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    wrong = [line for line in found.stdout.splitlines() if line.startswith(str(script)) and "error" in line]
    assert len(wrong) == 2, found.stdout
    assert '"Pipeline" has no attribute "no_such_method"' in wrong[0]
    assert 'Module has no attribute "no_such_name"' in wrong[1]
    assert (ROOT / "flax_distil" / "py.typed").is_file()


def test_the_demo_uses_only_the_public_names():
    tree = ast.parse((ROOT / "examples" / "demo.py").read_text())
    imported = {
        node.module for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flax_distil")
    }  # fmt: skip
    assert imported == {"flax_distil"}
