"""Learning rates by optimizer update: the schedules of transformers, under its names."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import optax

from flax_distil.core.arrays import Array
from flax_distil.core.errors import InputError

SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt",
)  # fmt: skip
"""Values of ``lr_scheduler_type``."""

SCHEDULE_PARAMETERS = ("num_cycles", "power", "lr_end", "timescale")
"""What ``lr_scheduler_kwargs`` may name."""

_ENDING = ("linear", "cosine", "cosine_with_restarts", "polynomial")
"""Schedules that come to their end at ``max_steps``."""

_INVERSE_SQRT_STEPS = 10_000
"""Timescale of ``inverse_sqrt`` without a warm-up, as in transformers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A learning rate by optimizer update.

    Attributes:
        lr_scheduler_type: one of :data:`SCHEDULES`.
        learning_rate: peak rate.
        warmup_steps: optimizer updates from 0 to the peak; "constant" has no warm-up.
        max_steps: optimizer updates in all.
        num_cycles: waves of "cosine" (by default 0.5: from the peak down to 0), or how often
            "cosine_with_restarts" comes down (by default once).
        power: of "polynomial".
        lr_end: last rate of "polynomial".
        timescale: updates in which "inverse_sqrt" falls from 1 to 1/√2 of its curve; by default the warm-up.

    Raises:
        InputError: if a value is out of range.

    Source: ``transformers.get_scheduler``.
    """

    lr_scheduler_type: str = "linear"
    learning_rate: float = 1e-4
    warmup_steps: int = 500
    max_steps: int
    num_cycles: float | None = None
    power: float = 1.0
    lr_end: float = 1e-7
    timescale: int | None = None

    def __post_init__(self) -> None:
        if self.lr_scheduler_type not in SCHEDULES:
            raise InputError(
                f"lr_scheduler_type {self.lr_scheduler_type!r} is unknown: "
                f"expected one of {', '.join(SCHEDULES)}"
            )
        if self.max_steps < 1 or self.warmup_steps < 0 or not 0 <= self.learning_rate < math.inf:
            raise InputError(
                f"expected max_steps ≥ 1, warmup_steps ≥ 0 and a finite learning_rate ≥ 0, got "
                f"{self.max_steps}, {self.warmup_steps} and {self.learning_rate}"
            )
        if self.lr_scheduler_type in _ENDING and self.warmup_steps >= self.max_steps:
            raise InputError(
                f"warmup_steps {self.warmup_steps} must be below max_steps {self.max_steps}, "
                "or the peak learning rate is never reached"
            )
        self._check_parameters()

    def _check_parameters(self) -> None:
        cycles = self.num_cycles
        if cycles is not None and not 0 < cycles < math.inf:
            raise InputError(f"num_cycles {cycles} of lr_scheduler_kwargs is not a positive number")
        if not 0 < self.power < math.inf:
            raise InputError(f"power {self.power} of lr_scheduler_kwargs is not a positive number")
        if self.timescale is not None and self.timescale < 1:
            raise InputError(f"timescale {self.timescale} of lr_scheduler_kwargs is below 1")
        if self.lr_scheduler_type == "polynomial" and not 0 <= self.lr_end < self.learning_rate:
            raise InputError(
                f"lr_end {self.lr_end} of lr_scheduler_kwargs is not between 0 and the learning_rate "
                f"{self.learning_rate}, from which it falls"
            )


def learning_rate_schedule(config: ScheduleConfig) -> optax.Schedule:
    """Return the learning rate by optimizer update (0-based), never by micro-batch."""
    peak, warmup_steps = config.learning_rate, config.warmup_steps
    after = _after_warmup(config)
    if not warmup_steps or config.lr_scheduler_type == "constant":
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), after], [warmup_steps])


def _after_warmup(config: ScheduleConfig) -> optax.Schedule:
    """Return the rate by updates since the end of the warm-up."""
    peak, steps = config.learning_rate, config.max_steps - config.warmup_steps
    cycles = config.num_cycles

    def cosine(count: Any) -> Array:
        waves = 0.5 if cycles is None else cycles
        return peak * 0.5 * (1.0 + jnp.cos(2.0 * jnp.pi * waves * count / steps))

    def cosine_with_restarts(count: Any) -> Array:
        progress = count / steps
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * ((cycles or 1.0) * progress % 1.0)))
        return peak * jnp.where(progress >= 1.0, 0.0, falling)

    def inverse_sqrt(count: Any) -> Array:
        timescale = config.timescale or config.warmup_steps or _INVERSE_SQRT_STEPS
        return peak / jnp.sqrt((count + timescale) / timescale)

    kind = config.lr_scheduler_type
    if kind == "linear":
        return optax.linear_schedule(peak, 0.0, steps)
    if kind == "polynomial":
        return optax.polynomial_schedule(peak, config.lr_end, config.power, steps)
    curves = {
        "cosine": cosine, "cosine_with_restarts": cosine_with_restarts, "inverse_sqrt": inverse_sqrt,
    }  # fmt: skip
    return curves.get(kind) or optax.constant_schedule(peak)
