"""The command ``export``: where formats go, and what is refused before any work."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.cli.main import main
from flax_distil.exporting.choices import Choice
from flax_distil.exporting.verification import compare
from flax_distil.exporting.verification.ctranslate2 import FasterWhisperRuntime
from flax_distil.text.normalizers import get_normalizer

pytestmark = pytest.mark.integration


def test_one_format_is_written_into_the_folder_itself(tiny_en_dir, tmp_path):
    out = tmp_path / "out"
    assert main(["export", "--model_name_or_path", str(tiny_en_dir), "--output_dir", str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == (tiny_en_dir / "model.safetensors").read_bytes()
    assert not (out / "export.json").exists()


@pytest.mark.parametrize("flags", [["--format", "no"], ["--quantization", "no"], ["--dtype", "int8"]])
def test_what_is_not_offered_is_refused_before_a_folder_is_made(flags, tiny_en_dir, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["export", "--model_name_or_path", str(tiny_en_dir), "--output_dir", str(out), *flags]
    assert main(command) == 2
    assert flags[1] in capsys.readouterr().err
    assert not out.exists()


def test_several_formats_have_a_folder_each_and_a_record(tiny_en_dir, tmp_path):
    out = tmp_path / "out"
    command = ["export", "--model_name_or_path", str(tiny_en_dir), "--output_dir", str(out)]
    assert main([*command, "--format", "hf,ct2", "--quantization", "ct2:bfloat16"]) == 0
    formats = json.loads((out / "export.json").read_text())["formats"]
    assert {name: one["quantization"] for name, one in formats.items()} == {
        "hf": "float16",
        "ct2": "bfloat16",
    }
    for name, one in formats.items():
        files = [path for path in (out / one["folder"]).iterdir() if path.is_file()]
        assert one["folder"] == name
        assert one["bytes"] == sum(path.stat().st_size for path in files)
    assert load_checkpoint(out / "ct2", config_only=True).config == load_checkpoint(out / "hf").config


def test_a_format_alone_is_overwritten_by_another(tiny_en_dir, tmp_path):
    out = tmp_path / "out"
    command = ["export", "--model_name_or_path", str(tiny_en_dir), "--output_dir", str(out)]
    assert main([*command, "--format", "ct2", "--quantization", "int8"]) == 0
    (out / "notes.txt").write_text("kept")
    assert main([*command, "--format", "mlx"]) == 2  # not without being asked to
    assert main([*command, "--format", "mlx", "--overwrite_output_dir"]) == 0
    assert not (out / "model.bin").exists()
    assert (out / "weights.safetensors").is_file()
    assert (out / "notes.txt").is_file()
    assert list(json.loads((out / "export.json").read_text())["formats"]) == ["mlx"]


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tiny_en_dir, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**8))
    command = ["export", "--model_name_or_path", str(tiny_en_dir), "--output_dir", str(out)]
    assert main([*command, "--format", "hf,ct2", "--dtype", "float32"]) == 2
    assert "hf (float32), ct2 (float32) into" in capsys.readouterr().err
    assert not out.exists()


def test_a_checkpoint_without_a_tokenizer_is_refused_by_formats_that_hold_it(tiny_en_dir, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (bare / name).symlink_to(tiny_en_dir / name)
    command = ["export", "--model_name_or_path", str(bare), "--output_dir", str(tmp_path / "out")]
    assert main([*command, "--format", "ct2"]) == 2
    assert "holds no tokenizer, which format ct2 includes" in capsys.readouterr().err
    assert main([*command, "--format", "mlx"]) == 0


def test_weights_that_are_not_finite_are_refused(tiny_en_dir, tmp_path, capsys):
    weights = load_file(tiny_en_dir / "model.safetensors")
    weights["model.encoder.conv1.bias"][3] = np.nan
    broken = tmp_path / "broken"
    shutil.copytree(tiny_en_dir, broken)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    for name in ("hf", "ct2"):  # every format reads through the same check
        out = tmp_path / name
        command = ["export", "--model_name_or_path", str(broken), "--output_dir", str(out)]
        assert main([*command, "--format", name]) == 2, name
        assert "1 of 384 values of model.encoder.conv1.bias" in capsys.readouterr().err, name
        assert not out.exists(), name


def test_verification_says_what_differs_and_fails_for_float32_alone(
    tiny_en_dir, tmp_path, few_prompts, caplog, monkeypatch
):
    command = ["export", "--model_name_or_path", str(tiny_en_dir), "--format", "ct2"]
    verify = ["--verify", *few_prompts[:2]]
    with caplog.at_level("INFO"):
        same = main([*command, "--output_dir", str(tmp_path / "a"), "--quantization", "float32", *verify])
    assert same == 0
    assert "2 of 2" in caplog.text
    monkeypatch.setattr(FasterWhisperRuntime, "transcribe", lambda self, clip: " Something else.")
    for quantization, status in (("float32", 1), ("int8", 0)):
        caplog.clear()
        out = ["--output_dir", str(tmp_path / quantization), "--quantization", quantization]
        with caplog.at_level("INFO"):
            assert main([*command, *out, *verify]) == status
        assert "0 of 2" in caplog.text
        assert "theirs: Something else." in caplog.text


def test_a_program_that_is_not_installed_is_named(tiny_en_dir, tmp_path, few_prompts, caplog, monkeypatch):
    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda name: None)
    choice = Choice(name="hf", quantization="float32")
    found = compare.compare(choice, tmp_path, [], get_normalizer("en"))
    assert not found.failed
    assert "transformers: not installed" in compare.comparison_table([found])


def test_a_recording_that_cannot_be_read_is_refused_before_anything_is_written(tiny_en_dir, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["export", "--model_name_or_path", str(tiny_en_dir), "--output_dir", str(out)]
    assert main([*command, "--verify", str(tmp_path / "absent.wav")]) == 2
    assert "absent.wav" in capsys.readouterr().err
    assert not out.exists()
