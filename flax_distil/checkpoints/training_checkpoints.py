"""Training checkpoints: Orbax saves the training state and the position in the data during training."""

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
    """Result of :meth:`TrainingCheckpoints.restore`.

    Attributes:
        step: Step at which it was saved.
        state: Pytree with the structure, types and shardings of the template.
        data: Position in the data, as it was given to :meth:`TrainingCheckpoints.save`.
    """

    step: int
    state: Any
    data: dict[str, Any]


class TrainingCheckpoints:
    """The training checkpoints in ``folder/checkpoint_<step>``.

    Saving copies the state from the devices, and then writes it in the background. A checkpoint gets its name
    only when it is complete, so a killed process leaves no incomplete checkpoint. Use it as a context
    manager, or call :meth:`close` at the end.
    """

    def __init__(self, folder: str | Path, *, save_total_limit: int | None = None) -> None:
        """Open a folder of checkpoints.

        Args:
            folder: Folder of the checkpoints, created if absent; remains of interrupted saves are removed.
            save_total_limit: Number of the latest checkpoints to keep; None keeps all.

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
        """Start saving, and return once the state may be overwritten (or donated).

        This waits for the previous save first. A step that is already saved is not saved again.

        Args:
            step: Number of optimizer updates so far.
            state: Pytree of arrays and numbers.
            data: Position in the data, as values that JSON can hold.
        """
        if step in self._manager.all_steps():
            return
        items = {_STATE: self._arguments.StandardSave(state), _DATA: self._arguments.JsonSave(data or {})}
        self._manager.save(step, args=self._arguments.Composite(**items), force=True)

    def restore(self, template: Any, step: int | None = None) -> TrainingState:
        """Read a checkpoint back.

        Args:
            template: Pytree of the state, with arrays or ``jax.ShapeDtypeStruct`` leaves whose types and
                shardings the result has.
            step: Step of the checkpoint; None for the latest one.

        Returns:
            The state, the position in the data, and the step.

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
        """Compare structure, shapes and types; Orbax would name only one difference, and convert types."""
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
        """Delete the checkpoints of later steps; training that continues from ``step`` saves them again."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def steps(self) -> list[int]:
        """Wait for the current save, and return the steps of the complete checkpoints in ascending order."""
        self.wait()
        return sorted(self._manager.all_steps())

    def wait(self) -> None:
        """Wait until the current save is on disk; if it failed, raise its exception."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the current save, and stop the background threads."""
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
    """Return descriptions such as ``{"params/kernel": "float32[3, 4]"}`` of a state or of metadata."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _describe(leaf) for path, leaf in leaves}


def _describe(leaf: Any) -> str:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    shape = leaf.shape if hasattr(leaf, "shape") else ()
    return f"{np.dtype(dtype).name}{list(shape)}"
