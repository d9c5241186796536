"""Stands in for ``gcloud compute tpus``: machines are folders, ssh is bash, plan.json tells what fails.

The folder STAND_IN holds plan.json (read), state.json (machines and counts), calls.jsonl (every call) and the
homes of workers.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(os.environ["STAND_IN"])
PLAN = json.loads((ROOT / "plan.json").read_text())
WORKERS = PLAN.get("workers", 1)


def fail(message: str, code: int = 1) -> NoReturn:
    sys.stderr.write(f"ERROR: (gcloud.compute.tpus) {message}\n")
    sys.exit(code)


def create(state: dict, kind: str, name: str, flags: dict) -> None:
    refusals = PLAN.get("refusals", {}).get(flags["zone"], [])
    number = state["creates"].get(flags["zone"], 0)
    state["creates"][flags["zone"]] = number + 1
    if number < len(refusals) and refusals[number]:
        fail(refusals[number])
    if name in state["nodes"]:
        fail("ALREADY_EXISTS")
    state["made"] += 1
    state["nodes"][name] = {"zone": flags["zone"], "looks": PLAN.get("looks", 1), "state": "CREATING"}
    state["nodes"][name] |= {"kind": kind, "home": f"home-{state['made']}"}
    for worker in range(WORKERS):
        (ROOT / f"home-{state['made']}-{worker}").mkdir()


def describe(state: dict, kind: str, name: str, flags: dict) -> None:
    node = state["nodes"].get(name)
    if node is None or node["zone"] != flags["zone"]:
        fail("NOT_FOUND: Resource was not found")
    if node["state"] == "CREATING" and node["looks"]:
        node["looks"] -= 1
        if node["kind"] == "queued-resources" and kind == "tpu-vm":
            fail("NOT_FOUND: Resource was not found")
    elif node["state"] == "CREATING":
        node["state"] = "READY"
    shown = {"CREATING": "WAITING_FOR_RESOURCES", "READY": "ACTIVE", "PREEMPTED": "SUSPENDED"}[node["state"]]
    value = {"state": shown} if kind == "queued-resources" else node["state"]
    print(json.dumps({"state": value, "networkEndpoints": [{}] * WORKERS}))


def delete(state: dict, kind: str, name: str, flags: dict) -> None:
    state["deletes"] += 1
    if state["deletes"] <= PLAN.get("failing_deletes", 0):
        fail("INTERNAL: try again")
    node = state["nodes"].pop(name, None)
    if node is None:
        fail("NOT_FOUND: Resource was not found")
    kill(node)


def kill(node: dict) -> None:
    for running in ROOT.glob(f"{node['home']}-*/.tpu_job/running.json"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(json.loads(running.read_text())["runner"], signal.SIGKILL)


def reach(state: dict, name: str) -> dict:
    """Return a machine that answers; take it away at the planned moment first."""
    node = state["nodes"].get(name)
    progress = [len(path.read_text().split()) for path in (ROOT / "bucket").glob("steps-*")]
    moments = PLAN.get("preemptions", [])[state["preempted"] :]
    if node and moments and min(progress, default=0) >= moments[0] and len(progress) == WORKERS:
        state["preempted"] += 1
        kill(node)
        node["state"] = "PREEMPTED"
    if node is None or node["state"] != "READY" or node["home"] in PLAN.get("silent", ()):
        fail("Connection closed by remote host", 255)
    return node


def homes(node: dict, flags: dict) -> list[Path]:
    chosen = range(WORKERS) if flags.get("worker") == "all" else [int(flags.get("worker", 0))]
    return [ROOT / f"{node['home']}-{worker}" for worker in chosen]


def ssh(folders: list[Path], flags: dict) -> int:
    code = 0
    for home in folders:
        environment = {**os.environ, "HOME": str(home)}
        environment.pop("SECRET_WORD", None)  # a worker knows only what was sent to it
        code = (
            subprocess.run(
                ["bash", "-c", flags["command"]], cwd=home, env=environment, check=False
            ).returncode
            or code
        )
    return code


def main() -> int:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    flags = dict(word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
    kind, verb, names = words[2], words[3], words[4:]
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (ROOT / "calls.jsonl").open("a") as calls:
            calls.write(json.dumps(sys.argv[1:]) + "\n")
        path = ROOT / "state.json"
        state = {"nodes": {}, "creates": {}, "made": 0, "deletes": 0, "preempted": 0}
        state = json.loads(path.read_text()) if path.exists() else state
        try:
            if verb in ("ssh", "scp"):
                name, _, folder = names[-1].partition(":")
                node = reach(state, name)
            else:
                {"create": create, "describe": describe, "delete": delete}[verb](state, kind, names[0], flags)
                return 0
        finally:
            path.write_text(json.dumps(state))
    if verb == "ssh":
        return ssh(homes(node, flags), flags)
    for home in homes(node, flags):
        for source in names[:-1]:
            shutil.copy(source, home / folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
