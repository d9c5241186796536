"""The decision about the student's encoder: frozen or trained, the teacher's own or a second one."""

import dataclasses
import logging

from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.sharing import equal_when_rounded
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.train_state import partition_params
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.config import WhisperConfig

log = logging.getLogger(__name__)

_COMPARED = (
    "encoder_layers", "max_source_positions", "d_model", "encoder_attention_heads", "encoder_ffn_dim",
    "num_mel_bins",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """Whether the student's encoder is trained, and whether it is the teacher's.

    Attributes:
        freeze: Whether the student's encoder keeps its weights.
        shared: Whether it is the teacher's too; it is then held once and runs once.
        difference: How it differs from the teacher's; None if it does not, or there is no teacher.
    """

    freeze: bool
    shared: bool
    difference: str | None = None


def choose_encoder(
    config: DistillConfig, student: WhisperConfig, teacher: WhisperConfig | None, difference: str | None
) -> EncoderChoice:
    """Decide how the encoder is held, by how the two encoders differ and what is configured.

    Raises:
        InputError: If encoder outputs are to be cached although the encoder is trained, or two encoders run.
    """
    freeze = difference is None if config.freeze.freeze_encoder is None else config.freeze.freeze_encoder
    shared = freeze and teacher is not None and difference is None
    if config.cache_encoder_states and not (shared or (freeze and not config.uses_teacher)):
        raise InputError(
            "cache_encoder_states keeps the states of one encoder, but the student's is not the "
            f"teacher's ({difference}): leave it out, or distil a student made of this teacher with all "
            "its encoder"
        )
    return EncoderChoice(freeze=freeze, shared=shared, difference=difference)


def encoder_difference(student: Checkpoint, teacher: Checkpoint | None) -> str | None:
    """Return how a student's encoder differs from its teacher's, in shape or in weights; None if it does not.

    An encoder that is the teacher's, rounded to the element type of its file, is the teacher's.
    """
    if teacher is None:
        return None
    if difference := shape_difference(student.config, teacher.config):
        return difference
    equal = equal_when_rounded(student.params["encoder"], teacher.params["encoder"])
    return None if equal else "its weights are others"


def shape_difference(student: WhisperConfig, teacher: WhisperConfig) -> str | None:
    """Return how the encoders differ in shape, by their configurations alone; None if they do not."""
    for name in _COMPARED:
        mine, theirs = getattr(student, name), getattr(teacher, name)
        if mine != theirs:
            return f"its {name} is {mine} and not {theirs}"
    return None


def log_training(config: DistillConfig, choice: EncoderChoice, student: Checkpoint, teacher: bool) -> None:
    """Log what is trained, and what a second encoder costs.

    Args:
        config: Configuration of the run, with the decision about the encoder.
        choice: How the encoder is held.
        student: Configuration of the student.
        teacher: Whether a teacher takes part in the loss.
    """
    trained, frozen = partition_params(whisper_shapes(student.config), config.freeze)
    log.info(
        "training %.1f M of %.1f M parameters: %s",
        _millions(trained),
        _millions(trained) + _millions(frozen),
        "; ".join(_parts(student.config, trained)),
    )
    if not teacher:
        return
    if choice.shared:
        log.info("the student's frozen encoder is the teacher's: it is held once and runs once in a step")
        return
    reason = choice.difference or "it is trained"
    cost = _millions(whisper_shapes(student.config)["encoder"])
    message = (
        "the student's encoder is not shared with the teacher (%s): the devices hold both, %.1f M parameters "
        "more, and both run in every step"
    )
    log.info(message, reason, cost)
    if choice.freeze and choice.difference is not None:
        log.warning(
            "freeze_encoder is set, so an encoder that is not the teacher's (%s) is not trained", reason
        )


def _parts(student: WhisperConfig, trained: Params) -> list[str]:
    """Describe the trained leaves of encoder and decoder."""
    parts = []
    for side, layers in (("encoder", student.encoder_layers), ("decoder", student.decoder_layers)):
        leaves = trained.get(side, {})
        names = [
            f"{layers} layers" if name == "layers" else name.replace("_", " ")
            for name in sorted(leaves, key=lambda name: (name != "layers", name))
        ]
        parts.append(f"{side}: {', '.join(names) if names else 'frozen'}")
    return parts


def _millions(tree: Params) -> float:
    return sum(leaf.size for leaf in flatten(tree).values()) / 1e6
