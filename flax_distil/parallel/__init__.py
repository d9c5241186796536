"""How work is laid over devices and processes."""

from flax_distil.parallel.data_parallel import (
    DATA_AXIS,
    batch_spec,
    data_mesh,
    over_data,
    put_batch,
    put_replicated,
)
from flax_distil.parallel.processes import ProcessConfig, gather_objects, join_processes, together

__all__ = [
    "DATA_AXIS",
    "ProcessConfig",
    "batch_spec",
    "data_mesh",
    "gather_objects",
    "join_processes",
    "over_data",
    "put_batch",
    "put_replicated",
    "together",
]
