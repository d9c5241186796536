"""Long recordings are divided over devices, and a device does not see who its neighbours are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_recordings_on_eight_devices_are_transcribed_as_on_one(tiny_en_dir):
    done = subprocess.run(
        [sys.executable, "-W", "error", Path(__file__).with_name("sequential_on_devices.py"), tiny_en_dir],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["data×8"] == found["one"]
    assert len({tuple(tokens) for tokens in found["one"]}) == len(found["one"]) == 11
    assert "12 rows" in found["refusal"]
    assert "8 parts" in found["refusal"]
