"""One of several processes that count together; ``test_peers.py`` stops or kills one of them."""

import json
import sys
import time

import jax

from flax_distil.core.errors import InputError, Interrupted
from flax_distil.core.signals import STOPPED, Stage, ended, enter_stage, interrupted, stop_signals
from flax_distil.parallel.config import ProcessConfig
from flax_distil.parallel.preemption import must_stop
from flax_distil.parallel.processes import all_gather_object, initialize_distributed


def count(task: str) -> None:
    """Count together until told to stop."""
    steps = 0
    while True:
        if must_stop():
            raise interrupted(f"{steps} steps are saved")
        if task == "apart":
            time.sleep(0.1 if jax.process_index() else 0.02)
        else:
            all_gather_object(steps)
        steps += 1
        if steps == 5:
            print("counting", flush=True)
        if task == "fail" and steps == 20 and jax.process_index() == 1:
            raise ValueError("a bug")
        if task == "refuse" and steps == 20 and jax.process_index() == 1:
            raise InputError("seed is wrong")


def main() -> int:
    task, settings = sys.argv[1], json.loads(sys.argv[2])
    try:
        with stop_signals():
            initialize_distributed(ProcessConfig(**settings))
            if task == "start":  # as where weights are read and programs compiled
                print("counting", flush=True)
                time.sleep(0 if jax.process_index() else 60)
                all_gather_object(None)
            enter_stage(Stage.BETWEEN_STEPS)
            count(task)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return ended(STOPPED, str(error))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return ended(2, str(error))
    except Exception as error:
        ended(1, str(error), error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
