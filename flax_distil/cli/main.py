"""The program ``flax-distil COMMAND``, whose flags are made from the configuration of each command."""

import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from flax_distil import __version__
from flax_distil.cli.platforms import pass_over_absent_tpu
from flax_distil.cli.terminal import forgiving_output
from flax_distil.core.failures import storage_failure
from flax_distil.core.process_age import note_command

COMMANDS = {
    "pseudo-label": ("pseudo_labeling.config:PseudoLabelConfig", "pseudo_labeling.job:run"),
    "init-student": ("checkpoints.config:InitStudentConfig", "checkpoints.job:run_init_student"),
    "distil": ("distillation.config:DistillConfig", "distillation.job:run"),
    "data inspect": ("inspection.config:InspectConfig", "inspection.job:run"),
    "plan": ("planning.config:PlanConfig", "planning.job:run"),
    "eval": ("evaluation.config:EvalConfig", "evaluation.job:run"),
    "transcribe": ("pipeline.config:TranscribeConfig", "pipeline.job:run"),
    "align-heads": ("pipeline.align_heads.config:AlignHeadsConfig", "pipeline.align_heads.job:run"),
    "report": ("reporting.config:ReportConfig", "reporting.job:run"),
    "export": ("exporting.config:ExportConfig", "exporting.job:run"),
}
"""Configuration and function of each command, whose name has one word or two; the functions import JAX."""

_LONGEST_SENTENCE = 1500
"""Maximum number of characters of an error; longer ones quote a value of thousands of words."""

_USAGE = """usage: flax-distil COMMAND [flags]

Distil OpenAI Whisper with JAX and Flax.

commands:
  pseudo-label  transcribe a corpus with a teacher
  init-student  make a student from layers of a teacher
  data inspect  show training data before training: hours, dropped samples, samples with their tokens
  distil        train a student, or fine-tune on labels alone
  plan          estimate whether a distillation fits on a TPU, and how fast it could be
  report        make one HTML page of a training run: curves, evaluations, worst samples, time
  eval          measure word error rate and speed
  transcribe    transcribe audio files of any length: text, subtitles, JSON
  align-heads   find the attention heads of a student that give word timestamps
  export        convert a checkpoint to the formats of other Whisper runtimes, or of transformers
  recipes       list the recipes for --config recipe:NAME, or print one

'flax-distil COMMAND --help' lists the flags; --config FILE reads them from YAML or JSON.

exit status: 0 done; 1 upload or some files failed; 2 wrong input or failed storage; 3 a condition of
eval --fail_if holds; 75 stopped by SIGTERM, SIGINT or the loss of another process: finished work is kept, and
the same command goes on.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    The status is 0 for success, 1 if only the upload or some of the files to transcribe failed, 2 for wrong
    input or failed storage, and 75 if the command was stopped (by a signal, or because another of its
    processes is gone) and the same command goes on. A second signal ends it at once, with 130 or 143. A
    reader of the output that stops reading does not change it.
    """
    if argv is None:
        note_command()
    with forgiving_output():
        chosen = _choose_command(list(sys.argv[1:] if argv is None else argv))
        return chosen if isinstance(chosen, int) else run_command(*chosen)


def _choose_command(arguments: Sequence[str]) -> tuple[str, Sequence[str]] | int:
    """Return the command and its flags, or the exit status where there is no command to run."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    command, *rest = arguments
    if command == "recipes":
        return _show_recipes(rest)
    seconds = [name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{command} ")]
    if seconds:
        return _choose_second(command, seconds, rest)
    if command not in COMMANDS:
        print(f"error: unknown command {command!r}: expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return command, rest


def _choose_second(
    first: str, seconds: Sequence[str], arguments: Sequence[str]
) -> tuple[str, Sequence[str]] | int:
    """Choose a command of two words; without the second word, list the commands that begin with the first."""
    if not arguments or arguments[0] in ("-h", "--help"):
        listed = [line for line in _USAGE.splitlines() if line.startswith(f"  {first} ")]
        print("\n".join([f"usage: flax-distil {first} COMMAND [flags]", "", "commands:", *listed]))
        return 0 if arguments else 2
    second, *rest = arguments
    if second not in seconds:
        expected = ", ".join(f"{first} {name}" for name in seconds)
        print(f"error: unknown command '{first} {second}': expected one of {expected}", file=sys.stderr)
        return 2
    return f"{first} {second}", rest


def _show_recipes(arguments: Sequence[str]) -> int:
    """Print the recipe that is named, or the list of all."""
    from flax_distil.cli.recipes import list_recipes, read_recipe
    from flax_distil.core.errors import InputError

    if len(arguments) == 1 and not arguments[0].startswith("-"):
        try:
            print(read_recipe(arguments[0]), end="")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    print(f"usage: flax-distil recipes [NAME]\n\nrecipes:\n{list_recipes()}")
    return 2 if len(arguments) > 1 else 0


def run_command(command: str, arguments: Sequence[str]) -> int:
    """Run one command with its flags and return the exit status; ``distil --dry_run`` is ``plan``."""
    pass_over_absent_tpu()  # must be first, because the next imports load JAX
    from flax_distil.cli.flags import switched_on
    from flax_distil.core.console import quiet
    from flax_distil.core.errors import InputError, Interrupted
    from flax_distil.core.signals import STOPPED, ended, stop_signals

    if command == "distil" and switched_on("dry_run", arguments):
        command = "plan"
    silent = switched_on("quiet", arguments)
    _set_up_logging(silent)  # must precede other imports, because some libraries set up logging too
    try:
        with stop_signals(), quiet(silent):
            return _run_configured(command, arguments)
    except InputError as error:
        print(f"error: {_with_short_words(str(error))}", file=sys.stderr)
        return ended(2, str(error))
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return ended(STOPPED, str(interruption))
    except KeyboardInterrupt:  # not from a signal, which is an Interrupted
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as stop:  # raised by the parser after --help
        return stop.code if isinstance(stop.code, int) else 2
    except MemoryError:
        exhausted = "memory is exhausted: give smaller batches or shorter files"
        print(f"error: {exhausted}", file=sys.stderr)
        return ended(2, exhausted)
    except Exception as error:
        sentence = storage_failure(error)
        if sentence is None:
            ended(1, str(error) or repr(error), error)
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return ended(2, sentence)


def _with_short_words(sentence: str) -> str:
    """Return a sentence cut where a value in it has thousands of characters or words."""
    cut = re.sub(r"\S{400,}", lambda word: f"{word[0][:60]}…{word[0][-20:]}", sentence)
    return cut if len(cut) <= _LONGEST_SENTENCE else f"{cut[: _LONGEST_SENTENCE // 2]} … {cut[-200:]}"


def _run_configured(command: str, arguments: Sequence[str]) -> int:
    from flax_distil.core.signals import ended

    config = read_command(command, arguments)
    if command == "distil" and config.dry_run:  # a file of flags may set it too
        return run_command("plan", arguments)
    result = _imported(COMMANDS[command][1])(config)
    if isinstance(result, dict) and result.get("failures"):
        return ended(3, "; ".join(result["failures"]))
    return 1 if getattr(result, "upload_error", None) or getattr(result, "failed", None) else 0


def read_command(command: str, arguments: Sequence[str]) -> Any:
    """Return the configuration that the flags of a command, and the files and recipes they name, describe.

    Raises:
        InputError: If they cannot be read.
    """
    from flax_distil.cli.flags import read_flags
    from flax_distil.cli.sections import LENDERS, Sections

    names = [*filter(None, [LENDERS.get(command)]), command]
    sections = Sections(
        command=command, commands=COMMANDS, configs={name: config_class(name) for name in names}
    )
    return read_flags(config_class(command), arguments, program=f"flax-distil {command}", sections=sections)


def config_class(command: str) -> Any:
    """Return the class of the configuration of a command."""
    return _imported(COMMANDS[command][0])


def _imported(address: str) -> Any:
    module, _, name = address.partition(":")
    return getattr(importlib.import_module(f"flax_distil.{module}"), name)


def _set_up_logging(silent: bool) -> None:
    """Show the log messages of this package, and only warnings of other libraries."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("flax_distil").setLevel(logging.WARNING if silent else logging.INFO)
    if silent:
        for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")


def script(command: str) -> None:
    """Run a command for a script such as ``run_distillation.py``, and exit with its status."""
    note_command()
    with forgiving_output():
        status = run_command(command, sys.argv[1:])
    sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
