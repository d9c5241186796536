"""The command ``export``: where formats go, and what is refused before any work."""

import pytest

from flax_distil.cli.main import main


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
