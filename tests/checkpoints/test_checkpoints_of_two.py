"""Two processes agree on what is damaged and on which save has failed; one alone reads what they saved."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints


@pytest.mark.slow
def test_what_fails_on_one_process_fails_on_both_and_the_next_save_works(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    script = Path(__file__).with_name("checkpoints_of_two.py")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(number), str(tmp_path)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    ends = [process.communicate(timeout=200) for process in processes]
    for process, (_, shown) in zip(processes, ends, strict=True):
        assert process.returncode == 0, shown
        assert "Traceback" not in shown
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ends)
    assert first == second
    assert first["restored"] == [1, 200_001.0]
    assert first["failed at 100"]
    assert first["failed at 50000"]
    assert first["failure"] is None
    assert first["steps"] == [1, 4]
    with TrainingCheckpoints(tmp_path, read_only=True) as checkpoints:
        kernel = np.asarray(checkpoints.restore_branch("params", 4)["kernel"])
    np.testing.assert_array_equal(kernel, np.arange(400_000, dtype=np.float32).reshape(4, -1) * 4)
