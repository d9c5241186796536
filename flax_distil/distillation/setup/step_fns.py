"""The jitted functions of a training run: train, evaluate, encode; each made once, here."""

import functools
from typing import Any

from jax.sharding import PartitionSpec as P

from flax_distil.distillation.optimizer import make_optimizer
from flax_distil.distillation.setup.shardings import TrainShardings
from flax_distil.distillation.train_state import init_state
from flax_distil.distillation.train_step import compute_gradients, encode_samples, eval_step, train_step
from flax_distil.distillation.training_config import OptimizerConfig
from flax_distil.parallel.partitioner import MICRO_BATCHES, REPLICATED, ROWS, Partitioner


class TrainStepFns:
    """Functions over the devices of all processes.

    Attributes:
        init: ``trainable -> state``; the parameters are donated.
        train: ``(state, frozen, teacher, batch) -> (state, metrics)``; the state is donated, and the batch
            has an axis of micro-batches in front.
        gradients: ``(trainable, frozen, teacher, batch, step) -> (gradients, metrics)``; not jitted.
        evaluate: ``(params, frozen, teacher, batch) -> TokenLossSums``.
        encode: ``(encoder, batch of samples) -> encoder outputs [B, S, D]``.
    """

    def __init__(self, optimizer: OptimizerConfig, shardings: TrainShardings, partitioner: Partitioner):
        """Describe the functions; each is compiled at its first call."""
        step, transformation = shardings.step.lasting(optimizer.max_steps), make_optimizer(optimizer)
        trainable, frozen, teacher = (
            tree.specs for tree in (shardings.trainable, shardings.frozen, shardings.teacher)
        )
        self.gradients = partitioner.shard_map(
            functools.partial(compute_gradients, step),
            in_specs=(trainable, frozen, teacher, MICRO_BATCHES, P()),
            out_specs=(trainable, REPLICATED),
        )
        state = shardings.state(optimizer).specs
        self.init = partitioner.jit(
            functools.partial(init_state, optimizer=transformation), donate_argnums=(0,), out_shardings=state
        )
        self.train: Any = partitioner.jit(
            functools.partial(train_step, step, transformation, gradients=self.gradients),
            donate_argnums=(0,),
            out_shardings=(state, REPLICATED),
        )
        self.evaluate = partitioner.jit(
            functools.partial(eval_step, step),
            in_specs=(trainable, frozen, teacher, ROWS),
            out_specs=REPLICATED,
        )
        encoder = shardings.whole_student().specs["encoder"]
        options = step.student_options if "encoder" in trainable else step.teacher_options
        self.encode = partitioner.jit(
            functools.partial(encode_samples, step, options), in_specs=(encoder, ROWS), out_specs=ROWS
        )
