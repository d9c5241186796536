"""Numbers that change over a run: learning rates as in transformers, weights and temperature of the loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from flax_distil.core.arrays import Array, Float
from flax_distil.distillation.training_config import LossConfig, ScheduleConfig

_INVERSE_SQRT_STEPS = 10_000
"""Timescale of ``inverse_sqrt`` without a warm-up, as in transformers."""


def learning_rate_schedule(config: ScheduleConfig) -> optax.Schedule:
    """Return the learning rate by optimizer update (0-based), never by micro-batch."""
    peak, warmup_steps = config.learning_rate, config.warmup_steps
    after = _after_warmup(config)
    if not warmup_steps or config.lr_scheduler_type == "constant":
        return after
    # That of transformers begins at its lowest rate, the others at 0.
    first = peak * config.min_lr_ratio if config.lr_scheduler_type == "warmup_stable_decay" else 0.0
    return optax.join_schedules([optax.linear_schedule(first, peak, warmup_steps), after], [warmup_steps])


def _after_warmup(config: ScheduleConfig) -> optax.Schedule:
    """Return the rate by updates since the end of the warm-up."""
    assert config.max_steps is not None
    peak, steps = config.learning_rate, config.max_steps - config.warmup_steps
    cycles = config.parameter("num_cycles", None)

    lowest = config.min_lr_ratio

    def wave(count: Any, length: int) -> Array:
        waves = 0.5 if cycles is None else cycles
        return 1.0 + jnp.cos(2.0 * jnp.pi * waves * count / length)

    def cosine(count: Any) -> Array:
        return peak * 0.5 * wave(count, steps)

    def cosine_with_min_lr(count: Any) -> Array:
        return peak * (0.5 * wave(count, steps) * (1.0 - lowest) + lowest)

    def warmup_stable_decay(count: Any) -> Array:
        decayed = count - (steps - config.decay_steps)
        falling = 0.5 * wave(jnp.maximum(decayed, 0), config.decay_steps) * (1.0 - lowest) + lowest
        return peak * jnp.where(decayed >= config.decay_steps, lowest, falling)

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
        "cosine_with_min_lr": cosine_with_min_lr, "warmup_stable_decay": warmup_stable_decay,
    }  # fmt: skip
    return curves.get(kind) or optax.constant_schedule(peak)


@dataclasses.dataclass(frozen=True)
class LossSchedule:
    """A number that goes from one value to another over a run; any number in a term of the loss may be one.

    ::

        linear   start + (end - start) · p              p = 0 at the first update, 1 at the last
        cosine   end + (start - end) · (1 + cos πp) / 2

    Attributes:
        kind: ``linear`` or ``cosine``.
        start: Value at the first update.
        end: Value at the last update.

    Source: teacher annealing of BAM!, arXiv 1907.04829 (linear); arXiv 1608.03983 (cosine).
    """

    kind: str
    start: float
    end: float

    @property
    def peak(self) -> float:
        """The largest value over the run."""
        return max(self.start, self.end)

    def at(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        """Return the value, float32, at a progress from 0 to 1 over the run."""
        rest = 1.0 - progress if self.kind == "linear" else 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return self.end + (self.start - self.end) * rest


def loss_schedule(config: LossConfig, name: str) -> float | LossSchedule:
    """Return a weight or the temperature of a complete configuration: a number, or its schedule."""
    start, (kind, end) = float(getattr(config, name)), config.schedule(name)
    return start if end is None else LossSchedule(kind, start, end)


def peak(value: float | LossSchedule) -> float:
    """Return a number, or the largest one of a schedule."""
    return value.peak if isinstance(value, LossSchedule) else value


def scheduled_fields(term: Any, progress: Float[Array, ""]) -> dict[str, Array]:
    """Return the present values of those fields of a term of the loss that have a schedule."""
    return {name: value.at(progress) for name, value in _schedules(term).items()}


def with_values(term: Any, values: Mapping[str, Array]) -> Any:
    """Return a term of the loss with the present values of its fields; its weight is left to the caller."""
    fields = {name: value for name, value in values.items() if name != "weight"}
    return dataclasses.replace(term, **fields) if fields else term


def has_schedule(term: Any) -> bool:
    """Return whether a number of a term of the loss changes over the run."""
    return bool(_schedules(term))


def at_peaks(terms: Mapping[str, Any]) -> dict[str, Any]:
    """Return terms of the loss with the largest value in the place of each schedule."""
    found = {}
    for name, term in terms.items():
        values = {field: value.peak for field, value in _schedules(term).items()}
        found[name] = dataclasses.replace(term, **values) if values else term
    return found


def _schedules(term: Any) -> dict[str, LossSchedule]:
    if not dataclasses.is_dataclass(term):
        return {}
    values = {field.name: getattr(term, field.name) for field in dataclasses.fields(term)}
    return {name: value for name, value in values.items() if isinstance(value, LossSchedule)}
