"""``flax-distil distil``."""

from collections.abc import Sequence

from flax_distil.cli.parser import parse_config
from flax_distil.workflows import DistilConfig, run_distillation


def run(argv: Sequence[str]) -> int:
    """Train a student; return the exit status."""
    result = run_distillation(parse_config(DistilConfig, argv, command="distil"))
    print(f"the student after {result.steps} steps is in {result.output_dir}")
    return 1 if result.upload_error else 0
