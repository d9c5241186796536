"""Whatever reads what a command says, the command does its work and ends with its own status."""

import errno
import io
import logging
import os
import subprocess
import sys

import pytest

from flax_distil.cli.main import main
from flax_distil.cli.platforms import pass_over_absent_tpu
from flax_distil.cli.terminal import ForgivingStream
from flax_distil.core.console import show
from flax_distil.evaluation import job as evaluate

NEEDED = ["eval", "--model_name_or_path", "m", "--dataset_name", "d"]


def test_characters_that_a_terminal_lacks_are_replaced():
    data = io.BytesIO()
    stream = ForgivingStream(io.TextIOWrapper(data, encoding="ascii"))
    stream.write("naïve\n")
    stream.write("plain\n")
    stream.flush()
    assert data.getvalue() == b"na\\xefve\nplain\n"


def test_writing_goes_on_when_the_reader_is_gone():
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as file:
        stream = ForgivingStream(file)
        os.close(reading)
        for _ in range(3):
            stream.write("x" * 100_000)
            stream.flush()
    assert file.closed


def run(code, **environment):
    command = [sys.executable, "-c", f"import sys; from flax_distil.cli.main import main; {code}"]
    variables = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables | environment
    )


def test_a_closed_output_changes_neither_status_nor_errors():
    process = run("sys.exit(main(['--help']))", LC_ALL="C", PYTHONIOENCODING="ascii")
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    process.stderr.close()


def test_quiet_shows_nothing_but_warnings(monkeypatch, capsys, tmp_path):
    def speak(config):
        show("a table")
        logging.getLogger("flax_distil.evaluation.job").info("progress")
        logging.getLogger("flax_distil.evaluation.job").warning("beware")
        levels.append(logging.getLogger("flax_distil").level)

    levels = []
    monkeypatch.setattr(evaluate, "run", speak)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    assert main([*NEEDED, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main(NEEDED) == 0
    assert capsys.readouterr().out == "a table\n"
    assert levels == [logging.WARNING, logging.INFO]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out/results.json"),
            "error: storage '/out/results.json' failed (No space left on device): what is finished stays; "
            "make room, and run the same command again\n",
        ),
        (PermissionError(errno.EACCES, "x", "/out"), "error: storage '/out' failed (Permission denied)"),
        (
            RuntimeError("INTERNAL: writing /a: No space left on device [at b.cc]"),
            "error: storage failed (No",
        ),
        (MemoryError(), "error: memory is exhausted"),
    ],
)
def test_a_failure_of_the_machine_is_one_sentence(error, sentence, monkeypatch, capsys):
    def fail(config):
        if isinstance(error, MemoryError):
            raise error
        raise ValueError("of a library") from error

    monkeypatch.setattr(evaluate, "run", fail)
    assert main(NEEDED) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(sentence)
    assert shown.count("\n") == 1


def test_an_error_of_the_program_is_not_hidden(monkeypatch):
    def fail(config):
        raise KeyError("a bug")

    monkeypatch.setattr(evaluate, "run", fail)
    with pytest.raises(KeyError, match="a bug"):
        main(NEEDED)


def test_no_tpu_is_looked_for_where_there_is_none():
    code = "main(['export', '--help']); import jax; print(len(jax.devices()), jax.default_backend())"
    process = run(code)
    output, errors = process.communicate()
    assert errors == b""
    assert output.endswith(b"1 cpu\n")


@pytest.mark.parametrize(("vendor", "found"), [("0x1ae0", True), ("0x8086", False)])
def test_a_tpu_on_the_bus_is_left_to_jax(vendor, found, tmp_path, monkeypatch):
    (tmp_path / "0000:00:04.0").mkdir()
    (tmp_path / "0000:00:04.0" / "vendor").write_text(f"{vendor}\n")
    for name in ("JAX_PLATFORMS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "jax")
    pass_over_absent_tpu(tmp_path)
    assert ("JAX_PLATFORMS" in os.environ) is not found


def test_what_data_hold_cannot_command_the_terminal():
    data = io.StringIO()
    stream = ForgivingStream(data)
    stream.write("\x1b[2Jid \x1b]0;title\x07\tcell\r\n\x9b31m")
    stream.write("\x1b[A\x1b[A")  # a progress bar returns to its line
    assert data.getvalue() == "\\x1b[2Jid \\x1b]0;title\\x07\tcell\r\n\\x9b31m\x1b[A\x1b[A"


def test_a_traceback_shows_no_token():
    process = run(
        "from flax_distil.cli.terminal import forgiving_output\n"
        "with forgiving_output(): raise OSError('hf_' + 'x' * 30)"
    )
    _, err = process.communicate()
    assert b"OSError: ***" in err
    assert b"hf_x" not in err
    assert process.returncode == 1
