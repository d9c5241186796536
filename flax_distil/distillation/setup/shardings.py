"""The weights of a run before any is read: shapes, types, and which device holds which piece."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from flax_distil.core.arrays import Params
from flax_distil.core.tree import flatten, merge
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.loss import Term, make_evaluation_terms, make_terms
from flax_distil.distillation.optimizer import make_optimizer
from flax_distil.distillation.schedules import at_peaks
from flax_distil.distillation.step_config import OnPolicy, StepConfig
from flax_distil.distillation.train_state import init_state, partition_params
from flax_distil.distillation.training_config import OnPolicyConfig, OptimizerConfig
from flax_distil.model.assembly import held_params, to_int8_params, whisper_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.parallel.peak_flops import check_int8
from flax_distil.parallel.rules import param_sharding
from flax_distil.text.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardedSpec:
    """The shapes of a tree of weights, and how each is divided over the mesh.

    Attributes:
        shapes: ``ShapeDtypeStruct`` leaves, of whole arrays.
        specs: A ``PartitionSpec`` for each leaf.
    """

    shapes: Any
    specs: Any

    def device_put(self, partitioner: Partitioner, params: Params) -> Params:
        """Send weights on the host to the devices, in the types of these shapes."""
        params = {
            side: to_int8_params(tree) if _has_int8(self.shapes[side]) else tree
            for side, tree in params.items()
        }
        typed = jax.tree.map(lambda shape, leaf: np.asarray(leaf).astype(shape.dtype), self.shapes, params)
        sent: Params = partitioner.device_put(typed, self.specs)
        return sent


class TrainShardings:
    """Shapes and specs of all weights of a run, made from configurations alone.

    Attributes:
        step: The static part of a step.
        trainable: float32 leaves to train.
        frozen: The other leaves of the student: a shared encoder as the teacher's weights are held, the rest
            in the type that the student computes in.
        teacher: ``{"decoder": …}``, with ``"encoder"`` where it is not shared; ``{}`` without a teacher.
    """

    def __init__(
        self,
        config: DistillConfig,
        partitioner: Partitioner,
        *,
        student: WhisperConfig,
        teacher: WhisperConfig | None,
        shares_encoder: bool,
        loss_terms: Mapping[str, Term] | None = None,
        special: SpecialTokens | None = None,
    ):
        """Decide where every weight lies.

        Args:
            config: Configuration of the run.
            partitioner: The devices.
            student: Shape of the student, with the run's dropouts.
            teacher: Shape of the teacher; None if it takes no part in the loss.
            shares_encoder: Whether the student's frozen encoder is the teacher's.
            loss_terms: Terms added to the loss, or in the place of one of the same name.
            special: Ids of the vocabulary, which on-policy distillation needs.

        Raises:
            InputError: If an axis of the mesh does not divide a weight, student and teacher do not fit, or
                the devices have no products of int8 and they are asked for.
        """
        if config.teacher_options.int8:
            check_int8(partitioner.mesh.devices.flat[0].device_kind)
        own, theirs, axes = config.student_options, config.teacher_options, config.teacher.axes
        student_specs = partitioner.weight_specs(whisper_shapes(student))
        frozen_encoder = {"encoder": _held(whisper_shapes(student)["encoder"], theirs)}
        frozen_specs = partitioner.weight_specs(frozen_encoder, axes)
        teacher_shapes: Params = {} if teacher is None else _held(whisper_shapes(teacher), theirs)
        if shares_encoder:
            teacher_shapes.pop("encoder", None)
        teacher_specs = partitioner.weight_specs(teacher_shapes, axes) if teacher_shapes else {}
        trainable, frozen = partition_params(whisper_shapes(student), config.freeze)
        frozen = {side: _held(tree, own) for side, tree in frozen.items()}
        if config.freeze.freeze_encoder:
            frozen |= frozen_encoder
        held = student_specs | (frozen_specs if config.freeze.freeze_encoder else {})
        self.trainable = ShardedSpec(shapes=trainable, specs=_same_paths(held, trainable))
        self.frozen = ShardedSpec(shapes=frozen, specs=_same_paths(held, frozen))
        self.teacher = ShardedSpec(shapes=teacher_shapes, specs=teacher_specs)
        # The frozen encoder computes as the teacher does, so the teacher's layout is that of both.
        teacher_options = _laid_out(config.teacher_options, frozen_specs | teacher_specs)
        own_terms = dict(loss_terms or {})
        self.step = StepConfig(
            student=student,
            teacher=teacher,
            student_options=_laid_out(config.student_options, student_specs),
            teacher_options=teacher_options,
            terms=make_terms(config.training_loss) | own_terms,
            evaluation_terms=make_evaluation_terms(config.training_loss) | at_peaks(own_terms),
            augmentation=config.data.augmentation,
            on_policy=_on_policy(config.on_policy, special),
            seed=config.data.seed,
            gradient_dtype="bfloat16" if config.precision == "full_mixed" else "float32",
            batch_axes=partitioner.batch_axes,
        )

    def state(self, optimizer: OptimizerConfig) -> ShardedSpec:
        """Return shapes and specs of the train state."""
        init = functools.partial(init_state, optimizer=make_optimizer(optimizer))
        shapes = jax.eval_shape(init, self.trainable.shapes)
        known = flatten(self.trainable.specs)

        def spec(path: Any, leaf: Any) -> P:
            # Moments are trees like the parameters, below other names.
            names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
            return known.get("/".join(names), P())

        return ShardedSpec(shapes=shapes, specs=jax.tree_util.tree_map_with_path(spec, shapes))

    def whole_student(self) -> ShardedSpec:
        """Return trainable and frozen leaves together."""
        return ShardedSpec(
            shapes=merge(self.trainable.shapes, self.frozen.shapes),
            specs=merge(self.trainable.specs, self.frozen.specs),
        )


def _same_paths(specs: Params, tree: Params) -> Params:
    """Return the part of ``specs`` that a part of the weights has."""
    return {
        name: _same_paths(specs[name], below) if isinstance(below, dict) else specs[name]
        for name, below in tree.items()
    }


def _on_policy(config: OnPolicyConfig, special: SpecialTokens | None) -> OnPolicy | None:
    if not config.lmbda:
        return None
    assert special is not None
    return OnPolicy(lmbda=config.lmbda, temperature=config.on_policy_temperature, special=special)


def _held(shapes: Params, options: ComputeOptions) -> Params:
    """Return the shapes of weights that are not trained, in the types in which a model holds them."""
    return jax.eval_shape(functools.partial(held_params, options=options), shapes)


def _has_int8(shapes: Params) -> bool:
    return any(leaf.dtype == jnp.int8 for leaf in jax.tree.leaves(shapes))


def _laid_out(options: ComputeOptions, specs: Params) -> ComputeOptions:
    return dataclasses.replace(options, sharding=param_sharding(specs))
