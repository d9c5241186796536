"""What every benchmark prints and measures: the machine, its matmul peak, interleaved rounds."""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import REPOSITORY


def limit_threads(threads: int) -> None:
    """Let both frameworks use ``threads`` cores; call it before either is imported.

    XLA's CPU client sizes its pool by the cores that the process may use, so the
    process is pinned; the other libraries read the variables.
    """
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def describe(threads: int) -> dict[str, Any]:
    """Name processor, threads and versions."""
    import jax
    import torch
    import transformers

    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "device": names[0] if names else platform.processor(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def matmul_peak(size: int = 2048, seconds: float = 1.0) -> float:
    """Return the best GFLOP/s of a float32 product of squares, in whichever framework is faster."""
    import jax
    import jax.numpy as jnp
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    x, y = jnp.asarray(a.numpy()), jnp.asarray(b.numpy())
    product = jax.jit(jnp.matmul)
    best = float("inf")
    for run in (lambda: torch.matmul(a, b), lambda: product(x, y).block_until_ready()):
        run()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def timed(run: Callable[[], Any]) -> float:
    """Return the seconds that ``run`` takes; it waits for its own results."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclasses.dataclass
class Rounds:
    """Seconds of each contestant, in the order they ran.

    Attributes:
        first: of the first call, with compilation.
        steady: of every later call.
    """

    first: dict[str, float]
    steady: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median of a contestant's steady rounds."""
        return statistics.median(self.steady[name])

    def summary(self, name: str) -> dict[str, float]:
        """Return median, extremes, and what the first call cost beyond them."""
        steady = self.steady[name]
        return {
            "seconds": self.median(name),
            "fastest": min(steady),
            "slowest": max(steady),
            "compile_seconds": max(0.0, self.first[name] - self.median(name)),
        }


def interleave(contestants: Mapping[str, Callable[[], Any]], *, rounds: int) -> Rounds:
    """Run A B A B …, so that a slow minute of the machine hits all of them alike."""
    result = Rounds({name: timed(run) for name, run in contestants.items()}, {n: [] for n in contestants})
    for index in range(rounds):
        for name, run in contestants.items():
            result.steady[name].append(timed(run))
            print(f"  round {index + 1}/{rounds}  {name:13}{result.steady[name][-1]:8.2f} s", flush=True)
    return result


def report(results: Mapping[str, Any], path: str | None) -> None:
    """Write the results as JSON, if a path is given."""
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(results, indent=2) + "\n")
        print(f"written to {path}")


def run_script(script: str, flags: Mapping[str, Any], *, programs: Path, **options: Any) -> None:
    """Run a script of this repository in a process of its own, with a cache of compiled programs.

    Args:
        script: Its name.
        flags: Its flags.
        programs: Folder of the cache.
        options: Further arguments of ``subprocess.run``.
    """
    subprocess.run(
        [sys.executable, script, *(f"--{name}={value}" for name, value in flags.items())],
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "FLAX_DISTIL_COMPILATION_CACHE": str(programs)},
        **options,
    )
