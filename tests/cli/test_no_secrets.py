"""Tokens, passwords and signatures reach neither the terminal nor a file, whatever becomes of a command."""

import json
import shutil
from pathlib import Path

import pytest

from flax_distil.cli.main import COMMANDS, main
from flax_distil.core import secrets
from tests.checkpoints.toy_folder import toy_files, write_files
from tests.data.flaky_http_server import Behavior, serving

CANARY = "canary0123456789"


@pytest.fixture
def tokens(monkeypatch):
    monkeypatch.setattr(secrets, "_remembered", set())
    monkeypatch.setenv("HF_TOKEN", f"hf_{CANARY}xx")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


def lines_of(command: str, model: Path, address: str, output: Path) -> list[str]:
    """A command that reads from an address with a password and a signature, and is given tokens."""
    out = ["--output_dir", str(output)]
    reads = [f"--token={CANARY}", "--source_retry_seconds=0.2"]
    pushes = ["--push_to_hub", f"--hub_token={CANARY}", "--hub_model_id=someone/model"]
    return command.split() + {
        "pseudo-label": ["--model", str(model), "--dataset_name", address, *reads, *out],
        "eval": ["--model", str(model), "--dataset_name", address, *reads, *out],
        "data inspect": ["--model", str(model), "--train_dataset_name", address, *reads, *out],
        "distil": [
            "--teacher", str(model), "--train_dataset_name", address, *reads, *out, "--max_steps=1", *pushes,
        ],
        "align-heads": ["--model", str(model), "--teacher", str(model), "--dataset_name", address, *reads],
        "transcribe": [address, "--model", str(model), *reads, *out],
        "export": ["--model", "someone/model", f"--token={CANARY}", *out, *pushes],
        "init-student": ["--teacher", "someone/model", f"--token={CANARY}", "--decoder_layers=1", *out],
        "report": [address],
        "plan": ["--teacher", "someone/model", f"--token={CANARY}", "--topology=v4-8"],
    }[command]  # fmt: skip


def signed(address: str, name: str) -> str:
    return f"{address.replace('://', f'://me:{CANARY}@')}/{name}?X-Amz-Signature={CANARY}"


def assert_hidden(shown: str, folder: Path) -> None:
    assert CANARY not in shown
    for path in folder.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("served", ["nothing", "errors", "no address"])
def test_a_command_that_fails_shows_no_secret(command, served, tokens, tmp_path, capfd):
    model = write_files(tmp_path / "model", toy_files())
    (tmp_path / "served").mkdir()
    behavior = Behavior(failing=1.0, faults=["503"]) if served == "errors" else None
    with serving(tmp_path / "served", behavior) as address:
        address = "http://nobody.invalid:port" if served == "no address" else address
        line = lines_of(command, model, signed(address, "rows.jsonl"), tmp_path / "output")
        assert main(line) in (1, 2)
    shown = "".join(capfd.readouterr())
    assert "error: " in shown
    assert_hidden(shown, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pseudo-label", "eval", "data inspect", "transcribe"])
def test_the_results_of_a_command_hold_no_secret(command, tokens, teacher, prompts_dir, tmp_path, capfd):
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(prompts_dir / "validation" / "conf-full.ogg", folder / "a.ogg")
    rows = [{"audio": name, "text": "That.", "whisper_transcript": "That."} for name in ("a.ogg", "b.ogg")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(folder) as address:
        name = "a.ogg" if command == "transcribe" else "rows.jsonl"
        line = lines_of(command, teacher, signed(address, name), tmp_path / "output")
        assert main(line) == 0, capfd.readouterr().err
    assert any((tmp_path / "output").iterdir())
    assert_hidden("".join(capfd.readouterr()), tmp_path)
