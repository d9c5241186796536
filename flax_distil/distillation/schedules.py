"""Learning rates by optimizer update: the schedules of transformers, under its names."""

from typing import Any

import jax.numpy as jnp
import optax

from flax_distil.core.arrays import Array
from flax_distil.distillation.training_config import ScheduleConfig

_INVERSE_SQRT_STEPS = 10_000
"""Timescale of ``inverse_sqrt`` without a warm-up, as in transformers."""


def learning_rate_schedule(config: ScheduleConfig) -> optax.Schedule:
    """Return the learning rate by optimizer update (0-based), never by micro-batch."""
    peak, warmup_steps = config.learning_rate, config.warmup_steps
    after = _after_warmup(config)
    if not warmup_steps or config.lr_scheduler_type == "constant":
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), after], [warmup_steps])


def _after_warmup(config: ScheduleConfig) -> optax.Schedule:
    """Return the rate by updates since the end of the warm-up."""
    assert config.max_steps is not None
    peak, steps = config.learning_rate, config.max_steps - config.warmup_steps
    cycles = config.parameter("num_cycles", None)

    def cosine(count: Any) -> Array:
        waves = 0.5 if cycles is None else cycles
        return peak * 0.5 * (1.0 + jnp.cos(2.0 * jnp.pi * waves * count / steps))

    def cosine_with_restarts(count: Any) -> Array:
        progress = count / steps
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * ((cycles or 1.0) * progress % 1.0)))
        return peak * jnp.where(progress >= 1.0, 0.0, falling)

    def inverse_sqrt(count: Any) -> Array:
        timescale = config.parameter("timescale", None) or config.warmup_steps or _INVERSE_SQRT_STEPS
        return peak / jnp.sqrt((count + timescale) / timescale)

    kind = config.lr_scheduler_type
    if kind == "linear":
        return optax.linear_schedule(peak, 0.0, steps)
    if kind == "polynomial":
        return optax.polynomial_schedule(peak, config.lr_end, config.parameter("power", 1.0), steps)
    curves = {
        "cosine": cosine, "cosine_with_restarts": cosine_with_restarts, "inverse_sqrt": inverse_sqrt,
    }  # fmt: skip
    return curves.get(kind) or optax.constant_schedule(peak)
