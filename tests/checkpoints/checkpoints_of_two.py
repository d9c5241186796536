"""One of two processes that save and restore together; ``test_checkpoints_of_two.py`` starts both."""

import json
import resource
import sys

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_distil.checkpoints.training import training_checkpoints
from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.parallel.config import ProcessConfig
from flax_distil.parallel.processes import initialize_distributed


def main(address: str, number: int, folder: str) -> None:
    initialize_distributed(ProcessConfig(coordinator_address=address, num_processes=2, process_id=number))
    training_checkpoints._TIMEOUT_SECONDS = 5
    mesh = Mesh(jax.devices(), ("data",))
    divided = NamedSharding(mesh, P("data"))

    def state(step: int) -> dict:
        make = jax.jit(
            lambda: {"params": {"kernel": jnp.arange(400_000.0).reshape(4, -1) * step, "bias": jnp.ones(3)}},
            out_shardings={"params": {"kernel": divided, "bias": NamedSharding(mesh, P())}},
        )
        return make()

    found = {}
    with TrainingCheckpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step), {"samples": step})
        checkpoints.wait()
        # One process cannot read its part of the newest.
        read = ocp.StandardCheckpointHandler.restore

        def restore(self, directory, *args, **kwargs):
            if number == 1 and "checkpoint_2" in str(directory):
                raise ValueError("DATA_LOSS: bad chunk")
            return read(self, directory, *args, **kwargs)

        ocp.StandardCheckpointHandler.restore = restore
        restored = checkpoints.restore(state(0))
        kernel = restored.state["params"]["kernel"]
        found["restored"] = [restored.step, float(jnp.sum(kernel[1, :2]))]
        # One process cannot write: at the beginning of a save, and in the background.
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for limit in (100, 50_000):
            if number == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            checkpoints.save(3, state(3))
            checkpoints.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            found[f"failed at {limit}"] = checkpoints.failure is not None
        checkpoints.save(4, state(4))
        found["steps"] = checkpoints.steps()
        found["failure"] = checkpoints.failure
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
