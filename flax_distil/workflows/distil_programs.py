"""The compiled programs of a run: train, evaluate, encode; each jitted once, here."""

import functools
from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec as P

from flax_distil.audio import log_mel
from flax_distil.core import Array, Params
from flax_distil.distillation import (
    StepConfig,
    TokenLossSums,
    TrainState,
    apply_gradients,
    compute_gradients,
    encode,
    eval_step,
    init_state,
    make_optimiser,
)
from flax_distil.model import ComputeOptions
from flax_distil.parallel import BATCH, REPLICATED, ROWS, Runner
from flax_distil.workflows.distil_config import DistilConfig
from flax_distil.workflows.distil_layout import DistilLayout


class DistilPrograms:
    """Programs over the devices of all processes; batches are dictionaries of arrays named by their axes.

    Attributes:
        gradients: ``(trainable, frozen, teacher, batch, step) -> (gradients, metrics)``; not compiled.
        init: ``trainable -> state``; the parameters are donated.
        train: ``(state, frozen, teacher, batch) -> (state, metrics)``; the state is donated.
        evaluate: ``(params, frozen, teacher, batch) -> TokenLossSums``.
        encode: ``(encoder, {"samples_BW": …}) -> {"states_BSD": …}``.
    """

    def __init__(self, config: DistilConfig, layout: DistilLayout, runner: Runner, *, max_steps: int):
        """Describe the programs; nothing is compiled before its first call."""
        step, optimiser = layout.step, make_optimiser(config.optimiser(max_steps))
        trainable, frozen, teacher = (
            tree.specs for tree in (layout.trainable, layout.frozen, layout.teacher)
        )
        self.gradients = runner.per_device(
            functools.partial(_gradients, step, config.seed),
            arguments=(trainable, frozen, teacher, BATCH, P()),
            results=(trainable, REPLICATED),
        )

        def train(
            state: TrainState, frozen: Params, teacher: Params, batch: Mapping[str, Array]
        ) -> tuple[TrainState, dict[str, Array]]:
            found = self.gradients(state.params, frozen, teacher, batch, state.step)
            return apply_gradients(optimiser, state, *found)

        state = layout.state(max_steps).specs
        self.init = runner.program(
            functools.partial(init_state, optimiser=optimiser), donate=(0,), results=state
        )
        self.train = runner.program(train, donate=(0,), results=(state, REPLICATED))
        self.evaluate = runner.program(
            runner.per_device(
                functools.partial(_evaluate, step),
                arguments=(trainable, frozen, teacher, BATCH),
                results=REPLICATED,
            )
        )
        encoder = layout.whole_student().specs["encoder"]
        options = step.teacher_options if config.freeze_encoder else step.student_options
        self.encode = runner.program(
            runner.per_device(
                functools.partial(_encode, step, options), arguments=(encoder, BATCH), results=ROWS
            )
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


def _gradients(
    step: StepConfig,
    seed: int,
    trainable: Params,
    frozen: Params,
    teacher: Params,
    batch: Mapping[str, Array],
    number: Array,
) -> tuple[Params, dict[str, Array]]:
    batch = _with_mel(batch, step.student.num_mel_bins)
    key = jax.random.fold_in(jax.random.key(seed), number)
    return compute_gradients(step, trainable, frozen, teacher, batch, key)


def _evaluate(
    step: StepConfig, params: Params, frozen: Params, teacher: Params, batch: Mapping[str, Array]
) -> TokenLossSums:
    return eval_step(step, params, frozen, teacher, _with_mel(batch, step.student.num_mel_bins))


def _encode(
    step: StepConfig, options: ComputeOptions, encoder: Params, batch: Mapping[str, Array]
) -> dict[str, Array]:
    mel_BRM = _with_mel(batch, step.student.num_mel_bins)["mel_BRM"]
    return {"states_BSD": encode(step.student, options, encoder, mel_BRM)}
