"""The student in a training checkpoint: trained weights from there, the others from where the run began."""

import hashlib
import logging
from typing import Any

import jax.numpy as jnp
import numpy as np

from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.formats.conversion import converted
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.load_on_cpu import load_on_cpu
from flax_distil.checkpoints.student import allow_empty_text, init_student
from flax_distil.checkpoints.training.training_checkpoints import CHECKPOINTS_NAME, TrainingCheckpoints
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.core.tree import flatten, unflatten

log = logging.getLogger(__name__)

_PARAMS = "params"


def frozen_digest(frozen: Params) -> str:
    """Return a digest of the weights of a student that are not trained, in the type of the export."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(frozen).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype.name}{list(array.shape)}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load_trained_student(run: ModelSource, which: str) -> Checkpoint:
    """Read the student of a training checkpoint into the memory of the host.

    The weights that were not trained come from the model that the run began with, or, where this is gone or
    has changed, from an earlier export of the run.

    Args:
        run: Folder of the run, ``output_dir`` of the command ``distil``.
        which: ``latest``, ``best``, or the number of a step.

    Raises:
        InputError: If there is no such checkpoint, it is damaged, or weights that were not trained cannot be
            had.
    """
    name = str(run) if "://" in str(run) else str(user_path(str(run)))
    with TrainingCheckpoints(f"{name}/{CHECKPOINTS_NAME}", read_only=True) as checkpoints:
        record = checkpoints.read_record(_step(checkpoints, which))
        step, facts = record["step"], record["about"]["student"]
        trained = checkpoints.restore_branch(_PARAMS, step)
    log.info("exporting checkpoint %d of %s", step, run)
    origin = ModelSource(**facts["source"], cache_dir=run.cache_dir, token=run.token)
    problems = []
    for source, layers in ((origin, facts["layers"]), (run, None)):
        try:
            student = _with_trained(source, layers, trained, facts)
            return allow_empty_text(student) if facts.get("allows_empty_text") else student
        except InputError as error:
            problems.append(f"{source}: {error}")
    raise InputError(
        f"checkpoint {step} of {run} holds trained weights only, and the others cannot be had "
        f"({'; '.join(problems)}): make the model that the run began with readable"
    )


def _step(checkpoints: TrainingCheckpoints, which: str) -> int | None:
    if which == "latest":
        return None
    if which != "best":
        return int(which)
    steps = checkpoints.steps()
    best = checkpoints.read_record()["about"].get("best")
    if best is None or best["step"] not in steps:
        raise InputError(
            f"{checkpoints.folder} holds no checkpoint of a best evaluation: name one of {steps}, or latest"
        )
    return int(best["step"])


def _with_trained(
    source: ModelSource, layers: dict[str, Any] | None, trained: Params, facts: dict[str, Any]
) -> Checkpoint:
    """Read a student, and replace its trained leaves; the others must be those of the run."""
    student = load_on_cpu(source)
    if layers is not None:
        student = init_student(student, **layers)
    dtype, leaves, changed = jnp.dtype(facts["export_dtype"]), flatten(student.params), flatten(trained)
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    if any(shapes.get(path) != leaf.shape for path, leaf in changed.items()):
        raise InputError("it has another architecture")
    frozen = {
        path: converted(path, np.asarray(leaf), dtype) for path, leaf in leaves.items() if path not in changed
    }
    if frozen_digest(unflatten(frozen)) != facts["frozen"]:
        raise InputError("its weights are not those that the run began with")
    return Checkpoint(config=student.config, params=unflatten(leaves | changed), files=student.files)
