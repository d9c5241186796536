"""Compiled programs outlive the process, and a cache that cannot be used stops nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, logging, sys
logging.basicConfig(format="%(message)s")
import jax, jax.numpy as jnp
from flax_distil.parallel import compilation_cache as cache

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
cache.MIN_COMPILE_SECONDS = 0.0
folder = [cache.use_compilation_cache() for _ in range(2)][-1]
x = jax.jit(lambda x: jnp.sin(x @ x).sum())(jnp.ones((8, 8)))
print(json.dumps({"folder": str(folder), "hits": events.count("cache_hits"), "x": float(x)}))
"""


def start(**environment: str) -> subprocess.Popen:
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=kept | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(process: subprocess.Popen) -> tuple[dict, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out), err


def test_processes_share_programs_in_the_users_cache_folder(tmp_path):
    places = {"XDG_CACHE_HOME": str(tmp_path), "FLAX_DISTIL_COMPILATION_CACHE": ""}
    for process in [start(**places) for _ in range(2)]:  # at the same time
        found, _ = finished(process)
    assert Path(found["folder"]).parent == tmp_path / "flax_distil" / "compiled"
    assert any(Path(found["folder"]).iterdir())
    later, err = finished(start(**places))
    assert later["hits"] > 0
    assert (later["x"], err) == (found["x"], "")


def test_a_folder_that_cannot_be_written_to_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    found, err = finished(start(FLAX_DISTIL_COMPILATION_CACHE=str(tmp_path / "file")))
    assert found["folder"] == "None"
    assert len(err.splitlines()) == 1
    assert "are not kept in" in err


def test_a_cache_of_the_users_own_is_left_alone_and_off_is_off(tmp_path):
    own, ours = tmp_path / "own", tmp_path / "ours"
    both = [start(JAX_COMPILATION_CACHE_DIR=str(own), FLAX_DISTIL_COMPILATION_CACHE=str(ours)),
            start(FLAX_DISTIL_COMPILATION_CACHE="off", XDG_CACHE_HOME=str(ours))]  # fmt: skip
    assert [finished(process)[0]["folder"] for process in both] == [str(own), "None"]
    assert not ours.exists()
