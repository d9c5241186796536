"""Student and teacher: loaded, checked against each other, partitioned and sent to the devices."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.formats.conversion import converted
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.load_on_cpu import load_on_cpu
from flax_distil.checkpoints.student import allow_empty_text, init_student
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.nested import replace
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.loss import Term
from flax_distil.distillation.schedules import peak
from flax_distil.distillation.setup.encoder_choice import (
    EncoderChoice,
    choose_encoder,
    encoder_difference,
    log_training,
)
from flax_distil.distillation.setup.shardings import TrainShardings
from flax_distil.distillation.train_state import partition_params
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import Partitioner

_LONGEST_PROMPT = 4  # tokens: start, language, task, no timestamps


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillModels:
    """The weights of student and teacher on the devices, and their configurations.

    Attributes:
        config: Configuration of the run; ``freeze_encoder`` is decided.
        shardings: Shapes and specs of all weights.
        student: Configuration (with the run's dropouts) and files of the student; no weights.
        teacher: Configuration and files of the teacher; None if it takes no part in the loss.
        trainable: float32 leaves to train.
        frozen: The other leaves of the student, in the compute dtype.
        kept: The same leaves in the host's memory, in the type of the export; ``{}`` on processes that
            export nothing. Those on the devices may have been rounded for computing, and where they were
            read from may be gone at the end.
        teacher_params: ``{"decoder": …}``, with ``"encoder"`` if it is not shared; ``{}`` without teacher.
    """

    config: DistillConfig
    shardings: TrainShardings
    student: Checkpoint
    teacher: Checkpoint | None
    trainable: Params
    frozen: Params
    kept: Params
    teacher_params: Params


_read_config = functools.partial(load_checkpoint, config_only=True)


def check_models(config: DistillConfig) -> tuple[Checkpoint, Checkpoint | None]:
    """Check the models as :func:`describe_models` does, without reading a weight."""
    return describe_models(config, _read_config)


def describe_models(
    config: DistillConfig, read: Callable[[ModelSource], Checkpoint]
) -> tuple[Checkpoint, Checkpoint | None]:
    """Make the student, and compare it with the teacher, by configurations alone: no weight is needed.

    Args:
        config: Configuration of the run.
        read: Function that reads a checkpoint, with or without weights.

    Returns:
        Configuration and files of student and teacher, if there is one.

    Raises:
        InputError: If the student asks for layers that the teacher lacks, if the two differ in
            vocabulary, mel bins or what the MSE term compares, if the student hears more at a time, if the
            decoder has no room for ``generation_max_length``, or if one cannot be read.
    """
    name = config.teacher.teacher_model_name_or_path
    teacher = read(config.teacher.source(config.model)) if name else None
    student = _student(config, teacher, read)
    if teacher is not None:
        equal = ("vocab_size", "num_mel_bins", *(("d_model",) if config.loss.peak("mse_weight") > 0 else ()))
        for field in equal:
            mine, theirs = getattr(student.config, field), getattr(teacher.config, field)
            if mine != theirs:
                raise InputError(
                    f"student {config.model.model_name_or_path!r} has {field} {mine}, teacher "
                    f"{name!r} {theirs}: distil a student made of this teacher"
                )
        _check_windows(config, student.config, teacher.config)
    room, evaluation = student.config.max_target_positions - _LONGEST_PROMPT, config.evaluation
    longest = evaluation.decoding.max_new_tokens
    if evaluation.eval_dataset_name is not None and longest is not None and longest > room:
        raise InputError(
            f"generation_max_length {longest} is too large: the decoder has room for {room} tokens after its "
            "prompt"
        )
    return student, teacher


def _check_windows(config: DistillConfig, student: WhisperConfig, teacher: WhisperConfig) -> None:
    mine, theirs = student.max_source_positions, teacher.max_source_positions
    if mine > theirs and config.uses_teacher:
        raise InputError(
            f"student {config.model.model_name_or_path!r} hears {student.window_seconds:g} s at a time and "
            f"teacher {config.teacher.teacher_model_name_or_path!r} only {teacher.window_seconds:g} s: "
            f"distil a student of at most {theirs} max_source_positions"
        )


def load_models(
    config: DistillConfig, partitioner: Partitioner, loss_terms: Mapping[str, Term]
) -> DistillModels:
    """Read the weights into the host's memory, make the student if asked to, and send all to the devices.

    Args:
        config: Configuration of the run.
        partitioner: The devices.
        loss_terms: Terms added to the loss, or in the place of one of the same name.

    Raises:
        InputError: If weights are missing or misshapen, encoder states are to be kept although
            student and teacher encode apart, or a loss term needs a teacher and there is none.
    """
    name = config.teacher.teacher_model_name_or_path
    teacher = load_on_cpu(config.teacher.source(config.model)) if name else None
    student = _student(config, teacher, load_on_cpu)
    difference = encoder_difference(student, teacher)
    choice = choose_encoder(config, student.config, teacher.config if teacher else None, difference)
    config = replace(config, freeze_encoder=choice.freeze)
    trainable, frozen = partition_params(student.params, config.freeze)
    teacher_params = _teacher_params(config, teacher, choice, loss_terms)
    used_teacher = dataclasses.replace(teacher, params={}) if teacher is not None and teacher_params else None
    student = dataclasses.replace(student, params={}, config=with_dropouts(config, student.config))
    shardings = TrainShardings(
        config,
        partitioner,
        student=student.config,
        teacher=used_teacher.config if used_teacher else None,
        shares_encoder=choice.shared,
        loss_terms=loss_terms,
        special=read_tokenizer(student.files)[0].special,
    )
    log_training(config, choice, student, teacher=used_teacher is not None)
    return DistillModels(
        config=config,
        shardings=shardings,
        student=student,
        teacher=used_teacher,
        trainable=shardings.trainable.device_put(partitioner, trainable),
        frozen=shardings.frozen.device_put(partitioner, frozen),
        kept=_kept(frozen, config.weights.export_dtype) if jax.process_index() == 0 else {},
        teacher_params=shardings.teacher.device_put(partitioner, teacher_params),
    )


def _teacher_params(
    config: DistillConfig, teacher: Checkpoint | None, choice: EncoderChoice, loss_terms: Mapping[str, Term]
) -> Params:
    """Return the weights of the teacher that take part in the loss; ``{}`` if none do."""
    asking = [name for name, term in loss_terms.items() if term.needs_teacher and peak(term.weight) > 0]
    if asking and teacher is None:
        raise InputError(f"the loss term {asking[0]!r} needs a teacher: give teacher_model_name_or_path")
    if teacher is None or not (config.uses_teacher or asking):
        return {}
    sides = ("decoder",) if choice.shared else ("encoder", "decoder")
    return {side: teacher.params[side] for side in sides}


def with_dropouts(config: DistillConfig, student: WhisperConfig) -> WhisperConfig:
    """Return the student's shape with the configured dropouts."""
    return dataclasses.replace(student, **dataclasses.asdict(config.dropouts))


def _kept(frozen: Params, dtype: str) -> Params:
    """Return copies of leaves in the type of the export; raises ``InputError`` if a value does not fit it."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: converted(
            jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf), jnp.dtype(dtype)
        ),
        frozen,
    )


def _student(
    config: DistillConfig, teacher: Checkpoint | None, read: Callable[[ModelSource], Checkpoint]
) -> Checkpoint:
    if config.model.model_name_or_path:
        student = read(config.model.source)
    else:
        assert teacher is not None  # DistillConfig refuses a run without either
        student = init_student(teacher, **config.student.layers)
    return allow_empty_text(student) if config.data.non_speech.replaces_samples else student
