"""``flax-distil COMMAND``: flags made from the configuration of each command."""

import importlib
import logging
import sys
from collections.abc import Sequence

from flax_distil import __version__

COMMANDS = {
    "pseudo-label": ("pseudo_label", "PseudoLabelConfig", "run_pseudo_labelling"),
    "init-student": ("conversion", "InitStudentConfig", "run_student_initialisation"),
    "distil": ("distil", "DistilConfig", "run_distillation"),
    "data inspect": ("inspect_data", "InspectConfig", "run_inspection"),
    "plan": ("plan", "PlanConfig", "run_plan"),
    "eval": ("evaluate", "EvalConfig", "run_evaluation"),
    "transcribe": ("transcribe", "TranscribeConfig", "run_transcription"),
    "align-heads": ("align_heads", "AlignHeadsConfig", "run_head_search"),
    "export": ("conversion", "ExportConfig", "run_export"),
}
"""Command, of one word or two, to workflow module, configuration and function."""

_USAGE = """usage: flax-distil COMMAND [flags]

Distil OpenAI Whisper with JAX and Flax.

commands:
  pseudo-label  transcribe a corpus with a teacher
  init-student  make a student of a teacher's layers
  data inspect  look at training data before a run: hours, drops, samples with their tokens
  distil        train a student, or fine-tune on labels alone
  plan          tell whether distil fits on a TPU, and how fast it could go
  eval          measure word error rate and speed
  transcribe    transcribe audio files of any length: text, subtitles, JSON
  align-heads   find the heads of a student that give word timestamps
  export        write a checkpoint as a Hugging Face folder

'flax-distil COMMAND --help' lists the flags; --config FILE reads them from YAML or JSON.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    0; 1 if only the upload failed, or some of the files to transcribe; 2 for bad input; 130 if interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    command, *rest = arguments
    seconds = [name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{command} ")]
    if seconds:
        return _run_second(command, seconds, rest)
    if command not in COMMANDS:
        print(f"error: unknown command {command!r}: expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return run_command(command, rest)


def _run_second(first: str, seconds: Sequence[str], arguments: Sequence[str]) -> int:
    """Run a command of two words, or list those that begin with the first."""
    if not arguments or arguments[0] in ("-h", "--help"):
        listed = [line for line in _USAGE.splitlines() if line.startswith(f"  {first} ")]
        print("\n".join([f"usage: flax-distil {first} COMMAND [flags]", "", "commands:", *listed]))
        return 0 if arguments else 2
    second, *rest = arguments
    if second not in seconds:
        expected = ", ".join(f"{first} {name}" for name in seconds)
        print(f"error: unknown command '{first} {second}': expected one of {expected}", file=sys.stderr)
        return 2
    return run_command(f"{first} {second}", rest)


def run_command(command: str, arguments: Sequence[str]) -> int:
    """Run one command with its flags and return the exit status; ``distil --dry_run`` is ``plan``."""
    from flax_distil.cli.flags import read_flags, switched_on
    from flax_distil.core import InputError

    if command == "distil" and switched_on("dry_run", arguments):
        command = "plan"
    module_name, config_name, function_name = COMMANDS[command]
    _set_up_logging()  # first: libraries that say something while they are imported would set it up their way
    module = importlib.import_module(f"flax_distil.workflows.{module_name}")
    try:
        config = read_flags(getattr(module, config_name), arguments, program=f"flax-distil {command}")
        if command == "distil" and config.dry_run:  # a file of flags may say so too
            return run_command("plan", arguments)
        result = getattr(module, function_name)(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as stop:  # of the parser, after --help
        return stop.code if isinstance(stop.code, int) else 2
    return 1 if getattr(result, "upload_error", None) or getattr(result, "failed", None) else 0


def _set_up_logging() -> None:
    """Show what this package says, and of other libraries only warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("flax_distil").setLevel(logging.INFO)


def script(command: str) -> None:
    """Run a command as a script of its own (``run_distillation.py``) and exit."""
    sys.exit(run_command(command, sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
