"""Every command on a disk that is full at one moment or another, as a small file system in memory."""

import contextlib
import shutil
import tarfile
from pathlib import Path

import pytest

from flax_distil.cli.main import main

pytestmark = pytest.mark.slow

ROOMS = (0, 8_192, 65_536, 1_000_000)
"""Bytes that are free when a command starts: nothing, and what is full at its beginning, middle or end."""


@pytest.fixture(scope="module")
def archive(prompts_dir, tmp_path_factory) -> Path:
    """Three prompts as an archive, which is copied to the data cache."""
    path = tmp_path_factory.mktemp("archive") / "train.tar"
    with tarfile.open(path, "w") as tar:
        for recording in sorted((prompts_dir / "train").glob("*.ogg"))[:3]:
            text = path.with_name("text.txt")
            text.write_text("A prompt.")
            tar.add(recording, recording.name)
            tar.add(text, f"{recording.stem}.txt")
    return path


def lines_of(command: str, teacher: Path, archive: Path, prompts_dir: Path, disk: Path) -> list[str]:
    recordings = [str(prompts_dir / "validation" / f"{name}.ogg") for name in ("conf-full", "agent-user")]
    data, short = ["--dataset_cache_dir", str(disk / "cache")], ["--generation_max_length", "6"]
    rows = ["--text_column_name", "text", *data]
    lines = {
        "transcribe": [*recordings, "--model", str(teacher), *short, "--skip_existing"],
        "eval": ["--model", str(teacher), "--dataset_name", str(archive), *rows, *short],
        "pseudo-label": ["--model", str(teacher), "--dataset_name", str(archive), *rows, *short],
        "export": ["--model", str(teacher), "--overwrite_output_dir"],
        "init-student": ["--teacher", str(teacher), "--decoder_layers", "1", "--overwrite_output_dir"],
        "data inspect": [
            "--model", str(teacher), "--train_dataset_name", str(archive), *rows, "--label_column_name",
            "text", "--overwrite_output_dir",
        ],
    }  # fmt: skip
    return [*command.split(), *lines[command], "--output_dir", str(disk / "output")]


def fill(disk: Path, room: int) -> Path:
    """Leave so many bytes free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(2**20)) == 2**20:
            pass
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - room))
    assert shutil.disk_usage(disk).free <= room + 4096
    return filler


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    "command", ["transcribe", "eval", "pseudo-label", "export", "init-student", "data inspect"]
)
def test_a_full_disk_is_one_sentence_keeps_what_is_there_and_goes_on(
    command, teacher, archive, prompts_dir, small_disk, capfd
):
    line = lines_of(command, teacher, archive, prompts_dir, small_disk)
    output, cache = small_disk / "output", small_disk / "cache"
    assert main(line) == 0, capfd.readouterr().err
    wanted = contents(output)
    for room in ROOMS:
        shutil.rmtree(cache, ignore_errors=True)
        if "--overwrite_output_dir" not in line:
            shutil.rmtree(output)
        filler = fill(small_disk, room)
        capfd.readouterr()
        status = main(line)
        shown = capfd.readouterr().err
        assert status == 2 if room == 0 else status in (0, 2), shown
        assert "Traceback" not in shown
        if status == 2:
            (error,) = (text for text in shown.splitlines() if text.startswith("error: "))
            assert "make room" in error or "larger disk" in error
            if "--overwrite_output_dir" in line:  # the earlier result stays, and nothing beside it
                assert contents(output) == wanted
        filler.unlink()
        assert main(line) == 0, capfd.readouterr().err
        found = contents(output)
        assert found.keys() == wanted.keys()
        assert {name for name in found if found[name] != wanted[name]} <= set(filter(is_timed, wanted))


def is_timed(name: str) -> bool:
    """Say whether a file tells speeds or digests beside results."""
    names = (
        ".transcripts.jsonl",
        "results.json",
        "report.html",
        "predictions/",
        "throughput.json",
        "index.json",
        "README.md",
    )
    return name.startswith(names)
