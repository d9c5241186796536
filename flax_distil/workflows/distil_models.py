"""Student and teacher of a run: loaded, checked against each other, split and laid on the devices."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flax_distil.core import InputError, Params, flatten, merge
from flax_distil.distillation import split_student
from flax_distil.parallel import put_replicated
from flax_distil.weights import Checkpoint, initialise_student, load_checkpoint
from flax_distil.workflows.distil_config import DistilConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilModels:
    """What the steps compute with, replicated over the devices.

    Attributes:
        student: configuration (with the run's dropouts) and files of the student; no weights.
        teacher: the same of the teacher; None if it takes no part in the loss.
        trainable: float32 leaves to train.
        frozen: the other leaves of the student, in the compute dtype.
        teacher_params: ``{"decoder": …}``, with ``"encoder"`` if it is not shared; ``{}`` without teacher.
    """

    student: Checkpoint
    teacher: Checkpoint | None
    trainable: Params
    frozen: Params
    teacher_params: Params


def check_models(config: DistilConfig) -> Checkpoint:
    """Compare student and teacher by their configurations, before any weight is read.

    Returns:
        The student's configuration and files (of the teacher where it is made from it).

    Raises:
        InputError: if they differ in vocabulary or mel bins, or cannot be read.
    """
    source = config.model_name_or_path or config.teacher_model_name_or_path
    assert source is not None  # DistilConfig refuses a run without either
    student = load_checkpoint(source, config_only=True)
    if config.model_name_or_path and config.teacher_model_name_or_path:
        teacher = load_checkpoint(config.teacher_model_name_or_path, config_only=True)
        for name in ("vocab_size", "num_mel_bins"):
            mine, theirs = getattr(student.config, name), getattr(teacher.config, name)
            if mine != theirs:
                raise InputError(
                    f"student {config.model_name_or_path!r} has {name} {mine}, teacher "
                    f"{config.teacher_model_name_or_path!r} {theirs}: distil a student made of this teacher"
                )
    if config.compute.dtype == "float16":
        raise InputError("training in float16 is not supported: choose another precision")
    return student


def load_models(config: DistilConfig, mesh: Mesh) -> DistilModels:
    """Read the weights, make the student if asked to, and lay everything on the devices."""
    name = config.teacher_model_name_or_path
    teacher = load_checkpoint(name) if name else None
    student = _student(config, teacher)
    trainable, frozen = split_student(student.params, config.freezing)
    shared = teacher is not None and config.freeze_encoder and _same_encoder(student, teacher)
    teacher_params: Params = {}
    if teacher is not None and config.uses_teacher:
        teacher_params = {"decoder": teacher.params["decoder"]}
        if not shared:
            teacher_params["encoder"] = teacher.params["encoder"]
    dtype = jnp.dtype(config.compute.dtype)

    def cast(params: Params) -> Params:
        return put_replicated(jax.tree.map(lambda leaf: leaf.astype(dtype), params), mesh)

    dropouts = {key: getattr(config, key) for key in ("dropout", "attention_dropout", "activation_dropout")}
    return DistilModels(
        student=dataclasses.replace(
            student, params={}, config=dataclasses.replace(student.config, **dropouts)
        ),
        teacher=dataclasses.replace(teacher, params={}) if teacher is not None and teacher_params else None,
        # A copy: the state is donated, and leaves of the teacher may be among them.
        trainable=put_replicated(jax.tree.map(jnp.copy, trainable), mesh),
        frozen=cast(frozen),
        teacher_params=cast(teacher_params),
    )


def exportable_params(config: DistilConfig, trained: Params) -> Params:
    """Return the whole student: trained leaves, and frozen ones as the source has them.

    The frozen leaves on the devices may have been rounded for computing, so they are read again.
    """
    name = config.teacher_model_name_or_path
    teacher = load_checkpoint(name) if name and not config.model_name_or_path else None
    _, frozen = split_student(_student(config, teacher).params, config.freezing)
    return merge(trained, frozen)


def _student(config: DistilConfig, teacher: Checkpoint | None) -> Checkpoint:
    if config.model_name_or_path:
        return load_checkpoint(config.model_name_or_path)
    assert teacher is not None  # DistilConfig refuses a run without either
    layers = config.student_decoder_layers
    if layers is None and config.student_decoder_layer_indices is None:
        layers = 2
    return initialise_student(
        teacher,
        encoder_layers=config.student_encoder_layers,
        decoder_layers=layers,
        decoder_layer_indices=config.student_decoder_layer_indices,
    )


def _same_encoder(student: Checkpoint, teacher: Checkpoint) -> bool:
    mine, theirs = flatten(student.params["encoder"]), flatten(teacher.params["encoder"])
    return all(
        mine[path] is theirs[path]
        or (mine[path].shape == theirs[path].shape and bool(jnp.array_equal(mine[path], theirs[path])))
        for path in theirs
    )
