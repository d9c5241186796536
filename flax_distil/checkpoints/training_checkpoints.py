"""Training checkpoints: state and data position, kept by Orbax while training goes on."""

import contextlib
import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from flax_distil.core.errors import InputError

_STEP_PREFIX = "checkpoint"
_STATE, _DATA = "state", "data"
_SHOWN_DIFFERENCES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What :meth:`TrainingCheckpoints.restore` gives back.

    Attributes:
        step: The step it was saved at.
        state: The pytree, in the structure, types and shardings of the template.
        data: The position in the data, as it was given.
    """

    step: int
    state: Any
    data: dict[str, Any]


class TrainingCheckpoints:
    """The checkpoints of one run, in ``folder/checkpoint_<step>``.

    Saving copies the state out of the devices, then writes in the background; a checkpoint
    takes its name only when it is complete, so a killed run leaves none that is half written.
    Use as a context manager, or call :meth:`close` at the end.
    """

    def __init__(self, folder: str | Path, *, save_total_limit: int | None = None) -> None:
        """Open the checkpoints of a run.

        Args:
            folder: Made if absent; remains of interrupted saves in it are removed.
            save_total_limit: How many checkpoints to keep, the oldest going first; ``None`` keeps all.

        Raises:
            InputError: If ``save_total_limit`` is not positive.
        """
        if save_total_limit is not None and save_total_limit < 1:
            raise InputError(
                f"save_total_limit is {save_total_limit}: expected 1 or more, or none to keep all"
            )
        import orbax.checkpoint as ocp  # takes a second to import

        self.folder = Path(folder).absolute()  # Orbax takes no relative paths
        options = ocp.CheckpointManagerOptions(
            max_to_keep=save_total_limit, step_prefix=_STEP_PREFIX, cleanup_tmp_directories=True
        )
        self._arguments = ocp.args
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=options,
            item_names=(_STATE, _DATA),
            item_handlers={_STATE: ocp.StandardCheckpointHandler(), _DATA: ocp.JsonCheckpointHandler()},
        )

    def save(self, step: int, state: Any, data: dict[str, Any] | None = None) -> None:
        """Start saving; returns once the state may be overwritten (or donated).

        Waits for the previous save first. A step that is already saved is left as it is.

        Args:
            step: Optimizer updates so far.
            state: Pytree of arrays and numbers.
            data: Position in the data: anything that JSON can hold.
        """
        if step in self._manager.all_steps():
            return
        items = {_STATE: self._arguments.StandardSave(state), _DATA: self._arguments.JsonSave(data or {})}
        self._manager.save(step, args=self._arguments.Composite(**items), force=True)

    def restore(self, template: Any, step: int | None = None) -> TrainingState:
        """Read a checkpoint back.

        Args:
            template: The state's pytree with arrays or ``jax.ShapeDtypeStruct`` leaves; their
                types and shardings are those of the result.
            step: Which checkpoint; the latest if ``None``.

        Returns:
            State, data position and step.

        Raises:
            InputError: If there is no such checkpoint, or it was saved with another model or optimizer.
        """
        steps = self.steps()
        if step is None and not steps:
            raise InputError(f"{self.folder} holds no training checkpoint to resume from")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise InputError(f"{self.folder} holds no checkpoint of step {step}: it has {steps or 'none'}")
        self._check_fit(template, step)
        abstract = jax.tree.map(_abstract, template)
        items = {_STATE: self._arguments.StandardRestore(abstract), _DATA: self._arguments.JsonRestore()}
        restored = self._manager.restore(step, args=self._arguments.Composite(**items))
        return TrainingState(step=step, state=restored[_STATE], data=restored[_DATA])

    def _check_fit(self, template: Any, step: int) -> None:
        """Compare structure, shapes and types first: Orbax would name one difference, and convert types."""
        saved = _leaf_descriptions(self._manager.item_metadata(step)[_STATE].tree)
        wanted = _leaf_descriptions(template)
        differences = [
            f"{path} (saved {saved.get(path, 'nothing')}, expected {wanted.get(path, 'nothing')})"
            for path in saved | wanted
            if saved.get(path) != wanted.get(path)
        ]
        if differences:
            more = len(differences) - _SHOWN_DIFFERENCES
            raise InputError(
                f"checkpoint {step} in {self.folder} does not fit the state of this run (another model, "
                f"optimizer or precision?): {', '.join(differences[:_SHOWN_DIFFERENCES])}"
                + (f" and {more} more" if more > 0 else "")
            )

    def drop_after(self, step: int) -> None:
        """Delete the checkpoints of later steps: a run that goes on from ``step`` takes another way."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, ascending; waits for the save under way."""
        self.wait()
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Return the step of the latest complete checkpoint, ``None`` if there is none."""
        return next(reversed(self.steps()), None)

    def wait(self) -> None:
        """Return when the save under way is on disk; raises what went wrong with it."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the save under way and stop the background threads."""
        with contextlib.closing(self._manager):
            self.wait()

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _leaf_descriptions(tree: Any) -> dict[str, str]:
    """Return ``{"params/kernel": "float32[3, 4]"}`` for a state or a checkpoint's metadata."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _describe(leaf) for path, leaf in leaves}


def _describe(leaf: Any) -> str:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    shape = leaf.shape if hasattr(leaf, "shape") else ()
    return f"{np.dtype(dtype).name}{list(shape)}"
