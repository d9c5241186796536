"""Compiling for CPUs quickly rather than well: most of the time of quick tests would be optimizations."""

import os
from importlib.metadata import version

# jaxlib 0.11.2 and later end the process at the first flag. They compile fastest with the second.
FLAGS = (
    "--xla_cpu_use_fusion_emitters=false"
    if version("jaxlib").startswith("0.10.")
    else "--xla_cpu_opt_preset=FAST_COMPILE"
)


def compile_quickly() -> None:
    """Have this process do so; before anything is compiled."""
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {FLAGS}"
    jax.devices()  # reads the flags
    os.environ["XLA_FLAGS"] = flags  # the TPU compiler reads them too, and ends the process at a CPU's
    jax.config.update("jax_disable_most_optimizations", True)


def environment() -> dict[str, str]:
    """Return variables with which another process compiles as this one does."""
    import jax

    if not jax.config.values["jax_disable_most_optimizations"]:
        return {}
    return {"XLA_FLAGS": FLAGS, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
