"""``flax-distil eval``."""

from collections.abc import Sequence

from flax_distil.cli.parser import parse_config
from flax_distil.workflows import EvalConfig, run_evaluation


def run(argv: Sequence[str]) -> int:
    """Measure a model on data sets; return the exit status."""
    print(run_evaluation(parse_config(EvalConfig, argv, command="eval")).report())
    return 0
