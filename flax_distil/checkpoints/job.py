"""The command ``init-student``, which makes a student from layers of a teacher."""

import jax.numpy as jnp

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.config import InitStudentConfig
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.student import init_student
from flax_distil.checkpoints.tokenizer import check_tokenizer
from flax_distil.storage.output_dir import atomic_folder
from flax_distil.storage.paths import AnyPath


def run_init_student(config: InitStudentConfig) -> AnyPath:
    """Write the folder of the student, and return its path."""
    folder, layers = config.output.check(), config.student.layers
    # The first call has no weights, so that wrong layers are reported before the weights are read.
    teacher = load_checkpoint(config.teacher.source, config_only=True)
    check_tokenizer(teacher.files)
    init_student(teacher, **layers)
    student = init_student(load_checkpoint(config.teacher.source), **layers)
    with atomic_folder(folder, stale=("model*.safetensors*",), last=["config.json"]) as scratch:
        dtype = jnp.dtype(config.weights.export_dtype)
        export_checkpoint(student.params, student.config, scratch, files=student.files, dtype=dtype)
    return folder
