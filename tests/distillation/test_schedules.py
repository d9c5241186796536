"""Learning rates by update are those of transformers, whatever the schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.distillation.schedules import learning_rate_schedule
from flax_distil.distillation.training_config import SCHEDULES, ScheduleConfig

PARAMETERS = {
    "cosine": {"num_cycles": 1.5},
    "cosine_with_restarts": {"num_cycles": 3.0},
    "polynomial": {"power": 2.0, "lr_end": 1e-3},
    "inverse_sqrt": {"timescale": 40.0},
    "cosine_with_min_lr": {"min_lr": 0.05, "num_cycles": 1.5},
    "warmup_stable_decay": {"num_decay_steps": 20.0, "min_lr_ratio": 0.1, "num_cycles": 1.5},
}
NEEDED = {"cosine_with_min_lr": {"min_lr_rate": 0.2}, "warmup_stable_decay": {"num_decay_steps": 30.0}}


def test_linear_schedule_peaks_after_warmup_and_ends_at_zero():
    schedule = learning_rate_schedule(ScheduleConfig(learning_rate=1.0, warmup_steps=10, max_steps=110))
    rates = [float(schedule(step)) for step in (0, 5, 10, 60, 110, 200)]
    np.testing.assert_allclose(rates, [0.0, 0.5, 1.0, 0.5, 0.0, 0.0], atol=1e-6)


def test_constant_schedule_stays_at_the_peak():
    config = ScheduleConfig(
        learning_rate=1.0, warmup_steps=4, max_steps=8, lr_scheduler_type="constant_with_warmup"
    )
    assert [float(learning_rate_schedule(config)(step)) for step in (0, 2, 4, 100)] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("warmup_steps", [0, 7])
@pytest.mark.parametrize("with_parameters", [False, True])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_rates_are_those_of_transformers(kind, with_parameters, warmup_steps):
    """float32 against Python's float64: within 1e-6 of the peak, from the first update to the last."""
    import torch
    from transformers import get_scheduler

    parameters = (PARAMETERS if with_parameters else NEEDED).get(kind, {})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_scheduler(
        kind,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=50,
        scheduler_specific_kwargs=dict(parameters),
    )
    wanted = []
    for _ in range(51):
        wanted.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    config = ScheduleConfig(
        lr_scheduler_type=kind,
        learning_rate=0.5,
        warmup_steps=warmup_steps,
        max_steps=50,
        lr_scheduler_kwargs=parameters,
    )
    rates = jax.vmap(learning_rate_schedule(config))(jnp.arange(51))
    np.testing.assert_allclose(np.broadcast_to(rates, 51), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 0.0}}, "num_cycles 0.0"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": -1.0}}, "power -1.0"),
        (
            {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}},
            "lr_end 1.0 .* is not between 0 and",
        ),
        ({"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 0.0}}, "timescale 0.0"),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 10}, "warmup_steps 10 must be below max_steps 10"),
        ({"learning_rate": float("nan")}, "nan"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "either min_lr or min_lr_rate"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1.0}},
            "lowest learning rate 10000 times the peak",
        ),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps updates, and they are 0"),
        (
            {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 10.0}},
            "warmup_steps 1 and num_decay_steps 10 .* more than max_steps 10",
        ),
    ],
)
def test_impossible_parameters_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        ScheduleConfig(**({"max_steps": 10, "warmup_steps": 1} | values))
