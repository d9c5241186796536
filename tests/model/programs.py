"""Programs of a small model, compiled without the backend's optimizations: compiling is their cost."""

from collections.abc import Callable

import jax

from flax_distil.model.assembly import bind_decoder, bind_encoder
from flax_distil.model.compute_options import ComputeOptions

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
