"""Weights in and out: checkpoints of every format, students, exports, training checkpoints, the Hub."""

from flax_distil.weights.alignment import renumber_alignment_heads, with_alignment_heads
from flax_distil.weights.checkpoint import Checkpoint, load_checkpoint
from flax_distil.weights.export import EXPORT_DTYPES, export_checkpoint
from flax_distil.weights.files import CheckpointFiles
from flax_distil.weights.model_source import ModelSource
from flax_distil.weights.sharing import equal_when_rounded
from flax_distil.weights.student import initialise_student, spaced_layers
from flax_distil.weights.training_checkpoints import TrainingCheckpoints
from flax_distil.weights.uploads import UploadError, check_repository, push_data_set, push_to_hub

__all__ = [
    "EXPORT_DTYPES",
    "Checkpoint",
    "CheckpointFiles",
    "ModelSource",
    "TrainingCheckpoints",
    "UploadError",
    "check_repository",
    "equal_when_rounded",
    "export_checkpoint",
    "initialise_student",
    "load_checkpoint",
    "push_data_set",
    "push_to_hub",
    "renumber_alignment_heads",
    "spaced_layers",
    "with_alignment_heads",
]
