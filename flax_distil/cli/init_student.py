"""``flax-distil init-student``."""

from collections.abc import Sequence

from flax_distil.cli.parser import parse_config
from flax_distil.workflows import InitStudentConfig, run_student_initialisation


def run(argv: Sequence[str]) -> int:
    """Make a student of a teacher's layers; return the exit status."""
    result = run_student_initialisation(parse_config(InitStudentConfig, argv, command="init-student"))
    print(result.report())
    return 1 if result.upload_error else 0
