"""How work is laid over devices."""

from flax_distil.parallel.data_parallel import (
    DATA_AXIS,
    batch_spec,
    data_mesh,
    over_data,
    put_batch,
    put_replicated,
)

__all__ = [
    "DATA_AXIS",
    "batch_spec",
    "data_mesh",
    "over_data",
    "put_batch",
    "put_replicated",
]
