"""The compiled programs of a run: train, evaluate, encode; each jitted once, here."""

import functools
from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec as P

from flax_distil.audio.augmentation import Talkers
from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.core.arrays import Array, Params
from flax_distil.distillation.config import DistilConfig
from flax_distil.distillation.features import with_features
from flax_distil.distillation.loss import TokenLossSums
from flax_distil.distillation.optimizer import make_optimizer
from flax_distil.distillation.shardings import TrainShardings
from flax_distil.distillation.train_state import TrainState, init_state
from flax_distil.distillation.train_step import (
    StepConfig,
    apply_gradients,
    compute_gradients,
    encode,
    eval_step,
)
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.partitioner import BATCH, REPLICATED, ROWS, Partitioner
from flax_distil.parallel.shaped_program import ShapedProgram


class TrainStepFns:
    """Programs over the devices of all processes; batches are dictionaries of arrays named by their axes.

    Attributes:
        gradients: ``(trainable, frozen, teacher, batch, step) -> (gradients, metrics)``; not compiled.
        init: ``trainable -> state``; the parameters are donated.
        train: ``(state, frozen, teacher, batch) -> (state, metrics)``; the state is donated. It
            may be compiled ahead of its first call.
        evaluate: ``(params, frozen, teacher, batch) -> TokenLossSums``.
        encode: ``(encoder, {"samples_BW": …}) -> {"encoder_out_BSD": …}``.
    """

    def __init__(
        self, config: DistilConfig, layout: TrainShardings, partitioner: Partitioner, *, max_steps: int
    ):
        """Describe the programs; nothing is compiled before its first call."""
        step, optimizer = layout.step, make_optimizer(config.optimizer(max_steps))
        trainable, frozen, teacher = (
            tree.specs for tree in (layout.trainable, layout.frozen, layout.teacher)
        )
        self.gradients = partitioner.shard_map(
            functools.partial(_gradients, step, config.augmentation, config.seed),
            in_specs=(trainable, frozen, teacher, BATCH, P()),
            out_specs=(trainable, REPLICATED),
        )

        def train(
            state: TrainState, frozen: Params, teacher: Params, batch: Mapping[str, Array]
        ) -> tuple[TrainState, dict[str, Array]]:
            found = self.gradients(state.params, frozen, teacher, batch, state.step)
            return apply_gradients(optimizer, state, *found)

        state = layout.state(max_steps).specs
        self.init = partitioner.jit(
            functools.partial(init_state, optimizer=optimizer), donate_argnums=(0,), out_shardings=state
        )
        self.train = ShapedProgram(
            partitioner.jit(train, donate_argnums=(0,), out_shardings=(state, REPLICATED))
        )
        self.evaluate = partitioner.jit(
            partitioner.shard_map(
                functools.partial(_evaluate, step),
                in_specs=(trainable, frozen, teacher, BATCH),
                out_specs=REPLICATED,
            )
        )
        encoder = layout.whole_student().specs["encoder"]
        options = step.teacher_options if config.freeze_encoder else step.student_options
        self.encode = partitioner.jit(
            partitioner.shard_map(
                functools.partial(_encode, step, options), in_specs=(encoder, BATCH), out_specs=ROWS
            )
        )


def _gradients(
    step: StepConfig,
    augmentation: AugmentationConfig,
    seed: int,
    trainable: Params,
    frozen: Params,
    teacher: Params,
    batch: Mapping[str, Array],
    number: Array,
) -> tuple[Params, dict[str, Array]]:
    talkers = None
    if augmentation.babble_noise_prob and "samples_KBW" in batch:  # of all micro-batches
        samples_KBW, lengths_KB = batch["samples_KBW"], batch["lengths_KB"]
        talkers = samples_KBW.reshape(-1, samples_KBW.shape[-1]), lengths_KB.reshape(-1)

    def prepare(micro_batch: Mapping[str, Array], index: Array | int) -> dict[str, Array]:
        among = None
        if talkers is not None:
            first = index * len(micro_batch["labels_BT"])
            among = Talkers(samples_NW=talkers[0], lengths_N=talkers[1], first=first)
        return with_features(step, teacher, micro_batch, augmentation, among)

    key = jax.random.fold_in(jax.random.key(seed), number)
    return compute_gradients(step, trainable, frozen, teacher, batch, key, prepare=prepare)


def _evaluate(
    step: StepConfig, params: Params, frozen: Params, teacher: Params, batch: Mapping[str, Array]
) -> TokenLossSums:
    return eval_step(step, params, frozen, teacher, with_features(step, teacher, batch))


def _encode(
    step: StepConfig, options: ComputeOptions, encoder: Params, batch: Mapping[str, Array]
) -> dict[str, Array]:
    mel_BRM = with_features(step, {}, batch)["mel_BRM"]
    return {"encoder_out_BSD": encode(step.student, options, encoder, mel_BRM)}
