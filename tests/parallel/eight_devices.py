"""Scripts in a process that has eight devices."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import quick_compilation

DEVICES = 8


def run_on_eight_devices(script: str, *arguments: Path) -> Any:
    """Return the JSON that a script beside this file prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", Path(__file__).with_name(script), *arguments],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling is the cost
            "XLA_FLAGS": " ".join(
                [f"--xla_force_host_platform_device_count={DEVICES}", quick_compilation.FLAGS]
            ),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
