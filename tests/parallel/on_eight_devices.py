"""What needs eight devices, in a process that has them; prints JSON for ``test_layouts.py``.

python on_eight_devices.py FOLDER_OF_A_TOKENIZER      what the default tests need
python on_eight_devices.py                            the rest
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import MICRO_BATCHES
from tests.parallel.layouts import (
    COMPILED_MOST,
    LAYOUTS,
    RARE,
    Trained,
    config,
    differences,
    evaluate,
    partitioner_for,
    tones,
    train,
    training_batch,
    transcribe,
)


def training(layouts: Iterable[str]) -> tuple[dict[str, Any], dict[str, Trained]]:
    """Train under some layouts with a frozen encoder."""
    alone = train(config(freeze_encoder=True), single_device(), training_batch())
    results: dict[str, Any] = {"one": {"history": alone.history, "evaluation": evaluate(alone)}}
    kept = {}
    for name in layouts:
        run = config(freeze_encoder=True, **LAYOUTS[name])
        kept[name] = train(run, partitioner_for(run), training_batch())
        results[name] = differences(kept[name], alone)
        if name in COMPILED_MOST:
            results[name]["evaluation"] = evaluate(kept[name])
    return results, kept


def training_the_encoder() -> dict[str, Any]:
    alone = train(config(freeze_encoder=False), single_device(), training_batch())
    results = {}
    for name in COMPILED_MOST:
        run = config(freeze_encoder=False, **LAYOUTS[name])
        results[name] = differences(train(run, partitioner_for(run), training_batch()), alone)
    return results


def training_on_policy() -> dict[str, Any]:
    """Train with a student that writes some decoder inputs itself, with a shared encoder and its own."""
    results = {}
    for frozen, layouts in ((True, COMPILED_MOST), (False, COMPILED_MOST[:1])):
        options: dict[str, Any] = {"freeze_encoder": frozen, "lmbda": 0.6, "temperature_schedule": "linear:1"}
        alone = train(config(**options), single_device(), training_batch())
        for name in layouts:
            run = config(**options, **LAYOUTS[name])
            found = differences(train(run, partitioner_for(run), training_batch()), alone)
            results[f"{name}, {'frozen' if frozen else 'trained'} encoder"] = found
        results["steps"] = [line["on_policy"] for line in alone.history]
    return results


def accumulation(two: Trained) -> dict[str, Any]:
    """The same sixteen rows as one micro-batch and as two."""
    run = config(freeze_encoder=True, **LAYOUTS["fsdp×8"])
    one = train(run, two.partitioner, training_batch(micro_batches=1))
    return differences(two, one) | {"steps": [int(one.state.step), int(two.state.step)]}


def bytes_per_device(trained: Trained) -> dict[str, float]:
    """Return how much of each tree the first device holds."""
    state, first = trained.state, jax.devices()[0]

    def share(tree: Any) -> float:
        held = [
            shard.data.nbytes
            for leaf in jax.tree.leaves(tree)
            for shard in leaf.addressable_shards
            if shard.device == first
        ]
        return sum(held) / sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    batch = trained.partitioner.put_batch(training_batch(), MICRO_BATCHES)
    gradients, _ = jax.jit(trained.fns.gradients)(state.params, *trained.arguments, batch, np.int32(0))
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    return {
        "params": share(state.params),
        "gradients": share(gradients),
        "moments": share(moments),
        "teacher and encoder": share(trained.arguments),
    }


def recompilations(trained: Trained) -> int:
    """Count what is compiled in three more updates."""
    compiled: list[str] = []

    def note(event: str, _: float, **details: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(str(details.get("fun_name")))

    state = trained.state
    jax.monitoring.register_event_duration_secs_listener(note)
    for _ in range(3):
        batch = trained.partitioner.put_batch(training_batch(), MICRO_BATCHES)
        state, metrics = trained.fns.train(state, *trained.arguments, batch)
    trained.partitioner.device_get(metrics)
    jax.monitoring.unregister_event_duration_listener(note)
    return len(compiled)


def placement() -> dict[str, Any]:
    """Rows of a batch, and results, keep their order."""
    found = {}
    for name in ("pmap×8", "fsdp×4·tensor×2"):
        partitioner = partitioner_for(config(freeze_encoder=True, **LAYOUTS[name]))
        rows = np.arange(16.0, dtype=np.float32).reshape(16, 1)
        found[name] = np.array_equal(
            partitioner.local_rows(partitioner.put_batch({"x_BW": rows}))["x_BW"], rows
        )
        tree = {"a": np.arange(3.0), "b": {"c": np.float32(2.0)}}
        back = flatten(partitioner.device_get(partitioner.device_put(tree)))
        found[f"{name} whole"] = all(np.array_equal(back[path], leaf) for path, leaf in flatten(tree).items())
        try:
            partitioner.put_batch({"x_BW": rows[:6]})
        except InputError as error:
            found[f"{name} refuses"] = "6 rows of a batch cannot be divided" in str(error)
    return found


def rest() -> dict[str, Any]:
    return {
        "frozen encoder": training(RARE)[0],
        "trained encoder": training_the_encoder(),
        "on policy": training_on_policy(),
    }


def most(folder: Path) -> dict[str, Any]:
    results, kept = training(name for name in LAYOUTS if name not in RARE)
    said = {"one": transcribe(single_device(), folder, tones())}
    said |= {name: transcribe(kept[name].partitioner, folder, tones()) for name in COMPILED_MOST}
    return {
        "frozen encoder": results,
        "accumulation": accumulation(kept["fsdp×8"]),
        "bytes": bytes_per_device(kept["fsdp×8"]),
        "recompilations": {name: recompilations(kept[name]) for name in COMPILED_MOST},
        "placement": placement(),
        "transcripts": said,
    }


if __name__ == "__main__":
    print(json.dumps(most(Path(sys.argv[1])) if sys.argv[1:] else rest()))
