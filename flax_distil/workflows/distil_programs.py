"""The compiled programs of a run: train, evaluate, encode; each jitted once, here."""

import functools
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from flax_distil.audio import log_mel
from flax_distil.core import Array, Params
from flax_distil.distillation import (
    StepConfig,
    TokenLossSums,
    TrainState,
    encode,
    eval_step,
    make_optimiser,
    train_step,
)
from flax_distil.parallel import DATA_AXIS, over_data
from flax_distil.workflows.distil_config import DistilConfig
from flax_distil.workflows.distil_models import DistilModels


class DistilPrograms:
    """Programs over all local devices; batches are dictionaries of arrays named by their axes.

    Attributes:
        optimiser: the optax transformation whose state the train state holds.
        train: ``(state, frozen, teacher, batch, key) -> (state, metrics)``; the state is donated.
        evaluate: ``(params, frozen, teacher, batch) -> TokenLossSums``.
        encode: ``(encoder, {"samples_BW": …}) -> {"states_BSD": …}``.
    """

    def __init__(self, config: DistilConfig, models: DistilModels, mesh: Mesh, *, max_steps: int):
        """Describe the programs; nothing is compiled before its first call."""
        step = StepConfig(
            student=models.student.config,
            teacher=None if models.teacher is None else models.teacher.config,
            student_options=config.compute,
            teacher_options=config.compute,
            weights=config.loss_weights,
            gradient_dtype="bfloat16" if config.precision == "full_mixed" else "float32",
            axis_name=DATA_AXIS,
        )
        self.optimiser = make_optimiser(config.optimiser(max_steps))
        self.train = over_data(
            functools.partial(_train, step, self.optimiser), mesh, batch_argument=3, arguments=5, donate=(0,)
        )
        self.evaluate = over_data(functools.partial(_evaluate, step), mesh, batch_argument=3, arguments=4)
        self.encode = over_data(
            functools.partial(_encode, step), mesh, batch_argument=1, arguments=2, results_split=True
        )


def _with_mel(batch: Mapping[str, Array], num_mel_bins: int) -> dict[str, Array]:
    """Replace raw samples, of any leading axes, by log-mel frames."""
    named = {}
    for name, value in batch.items():
        if name.startswith("samples_"):
            mel = log_mel(value.reshape(-1, value.shape[-1]), num_mel_bins=num_mel_bins)
            named["mel_KBRM" if value.ndim == 3 else "mel_BRM"] = mel.reshape(
                *value.shape[:-1], *mel.shape[1:]
            )
        else:
            named[name] = value
    return named


def _train(
    step: StepConfig,
    optimiser: Any,
    state: TrainState,
    frozen: Params,
    teacher: Params,
    batch: Mapping[str, Array],
    key: Array,
) -> tuple[TrainState, dict[str, Array]]:
    batch = _with_mel(batch, step.student.num_mel_bins)
    return train_step(step, optimiser, state, frozen, teacher, batch, key)


def _evaluate(
    step: StepConfig, params: Params, frozen: Params, teacher: Params, batch: Mapping[str, Array]
) -> TokenLossSums:
    return eval_step(step, params, frozen, teacher, _with_mel(batch, step.student.num_mel_bins))


def _encode(step: StepConfig, encoder: Params, batch: Mapping[str, Array]) -> dict[str, Array]:
    mel_BRM = _with_mel(batch, step.student.num_mel_bins)["mel_BRM"]
    return {"states_BSD": encode(step.student, step.teacher_options, encoder, mel_BRM)}
