"""``flax-distil pseudo-label``."""

from collections.abc import Sequence

from flax_distil.cli.parser import parse_config
from flax_distil.workflows import PseudoLabelConfig, run_pseudo_labelling


def run(argv: Sequence[str]) -> int:
    """Transcribe a data set with a teacher; return the exit status."""
    config = parse_config(PseudoLabelConfig, argv, command="pseudo-label")
    print(run_pseudo_labelling(config).report())
    return 0
