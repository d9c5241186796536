"""``flax-distil export``."""

from collections.abc import Sequence

from flax_distil.cli.parser import parse_config
from flax_distil.workflows import ExportConfig, run_export


def run(argv: Sequence[str]) -> int:
    """Write a checkpoint as a Hugging Face folder; return the exit status."""
    config = parse_config(ExportConfig, argv, command="export", aliases={"model": "model_name_or_path"})
    result = run_export(config)
    print(result.report())
    return 1 if result.upload_error else 0
