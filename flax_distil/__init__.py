"""flax_distil: distil OpenAI Whisper into small, fast students with JAX and Flax.

Names are imported when they are first used, so that importing the package loads neither JAX nor data sets.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_distil.checkpoints.checkpoint import load_checkpoint
    from flax_distil.checkpoints.config import InitStudentConfig
    from flax_distil.checkpoints.hub.model_source import ModelSource
    from flax_distil.checkpoints.job import run_init_student as init_student
    from flax_distil.core.errors import InputError
    from flax_distil.core.nested import build
    from flax_distil.distillation.config import DistillConfig
    from flax_distil.distillation.job import run as distill
    from flax_distil.evaluation.config import EvalConfig
    from flax_distil.evaluation.job import run as evaluate
    from flax_distil.exporting.config import ExportConfig
    from flax_distil.exporting.job import run as export
    from flax_distil.pipeline.config import TranscribeConfig
    from flax_distil.pipeline.job import run as transcribe
    from flax_distil.pipeline.pipeline import Pipeline
    from flax_distil.pipeline.pipeline import Pipeline as FlaxWhisperPipeline
    from flax_distil.pipeline.writers.write_transcript import write_transcript
    from flax_distil.pseudo_labeling.config import PseudoLabelConfig
    from flax_distil.pseudo_labeling.job import run as pseudo_label

__version__ = "0.1.0"

_ADDRESSES = {
    "DistillConfig": "distillation.config:DistillConfig",
    "EvalConfig": "evaluation.config:EvalConfig",
    "ExportConfig": "exporting.config:ExportConfig",
    "FlaxWhisperPipeline": "pipeline.pipeline:Pipeline",
    "InitStudentConfig": "checkpoints.config:InitStudentConfig",
    "InputError": "core.errors:InputError",
    "ModelSource": "checkpoints.hub.model_source:ModelSource",
    "Pipeline": "pipeline.pipeline:Pipeline",
    "PseudoLabelConfig": "pseudo_labeling.config:PseudoLabelConfig",
    "TranscribeConfig": "pipeline.config:TranscribeConfig",
    "build": "core.nested:build",
    "distill": "distillation.job:run",
    "evaluate": "evaluation.job:run",
    "export": "exporting.job:run",
    "init_student": "checkpoints.job:run_init_student",
    "load_checkpoint": "checkpoints.checkpoint:load_checkpoint",
    "pseudo_label": "pseudo_labeling.job:run",
    "transcribe": "pipeline.job:run",
    "write_transcript": "pipeline.writers.write_transcript:write_transcript",
}
"""Public names, and the module below this package and the name there that each stands for."""

__all__ = [
    "DistillConfig", "EvalConfig", "ExportConfig", "FlaxWhisperPipeline", "InitStudentConfig", "InputError",
    "ModelSource", "Pipeline", "PseudoLabelConfig", "TranscribeConfig", "__version__", "build", "distill",
    "evaluate", "export", "init_student", "load_checkpoint", "pseudo_label", "transcribe",
    "write_transcript",
]  # fmt: skip


if not TYPE_CHECKING:  # type checkers refuse names that are not imported above

    def __getattr__(name: str) -> Any:
        """Import a public name, and what it needs, when it is first asked for (PEP 562)."""
        if name not in _ADDRESSES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _ADDRESSES[name].partition(":")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
