"""Programs of a small model, compiled without the backend's optimizations: compiling is their cost."""

import functools
from collections.abc import Callable

import jax
from flax import nnx

from flax_distil.core.arrays import Params
from flax_distil.model.assembly import Whisper, bind_decoder, bind_encoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig

SCAN = ComputeOptions(use_scan=True)


def compiled(function: Callable) -> Callable:
    """Jit without the backend's optimizations: these models are tiny and compiling is the cost."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def encoding(config, options=SCAN, *, key=None):
    return compiled(lambda params, mel: bind_encoder(config, options, params["encoder"])(mel, key)[0])


def decoding(config, options=SCAN, *, key=None):
    """Return logits [B, T, V] of teacher forcing."""

    def run(params, tokens, states):
        decoder = bind_decoder(config, options, params["decoder"])
        return decoder.logits(decoder(tokens, states, key)[0])

    return compiled(run)


@functools.partial(jax.jit, static_argnums=0)
def init_params(config: WhisperConfig, key: jax.Array) -> Params:
    """Return randomly initialized float32 parameters."""
    model = Whisper(config, rngs=nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))
