"""Decay spares biases and norms, bfloat16 moments keep their mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.distillation.optimizer import decayed_leaves, make_optimizer, round_stochastically
from flax_distil.distillation.training_config import OptimizerConfig


def test_weight_decay_spares_biases_and_norms(small_params):
    decayed = decayed_leaves(small_params)
    assert decayed["decoder"]["layers"]["fc1"] == {"bias": False, "kernel": True}
    assert decayed["decoder"]["norm"] == {"bias": False, "scale": False}
    assert decayed["decoder"]["layers"]["self_attention"]["query"]["bias"] is False


def test_stochastic_rounding_keeps_the_mean_where_nearest_would_not():
    x = jnp.full(20_000, 1.0 + 2**-10)
    rounded = round_stochastically(x, jax.random.key(0)).astype(jnp.float32)
    assert set(np.unique(rounded)) == {1.0, 1.0078125}
    np.testing.assert_allclose(rounded.mean(), 1.0 + 2**-10, atol=2e-4)


def test_bfloat16_moments_follow_float32_moments():
    def run(bfloat16_moments):
        config = OptimizerConfig(
            learning_rate=1e-2, warmup_steps=0, max_steps=300, bfloat16_moments=bfloat16_moments
        )
        optimizer = make_optimizer(config)
        params = {"kernel": jnp.linspace(-1.0, 1.0, 512)}
        state = optimizer.init(params)

        def body(carry, step):
            params, state = carry
            gradient = {"kernel": 2 * params["kernel"] * jnp.where(step < 20, 10.0, 1.0)}
            updates, state = optimizer.update(gradient, state, params)
            return (jax.tree.map(jnp.add, params, updates), state), None

        (params, state), _ = jax.lax.scan(body, (params, state), jnp.arange(300))
        return params["kernel"], state

    (wide, _), (half, state) = run(False), run(True)
    assert {leaf.dtype for leaf in jax.tree.leaves(state[1])} == {jnp.dtype("int32"), jnp.dtype("bfloat16")}
    assert float(jnp.abs(wide - half).max()) < 0.02


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_scheduler_type": "triangular"}, "triangular"),
        ({"warmup_steps": 10}, "warmup_steps 10"),
        ({"learning_rate": -1.0}, "-1.0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        OptimizerConfig(**({"max_steps": 10, "warmup_steps": 1} | values))
