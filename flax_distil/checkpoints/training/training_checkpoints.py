"""Training checkpoints: Orbax saves the training state and the position in the data during training."""

import contextlib
import dataclasses
import errno
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from flax_distil.checkpoints.training.checkpoint_reader import DATA, STATE, CheckpointReader
from flax_distil.checkpoints.training.checkpoint_record import DamagedCheckpoint, seal
from flax_distil.checkpoints.training.leaf_checksums import describe_leaves, leaf_checksums
from flax_distil.checkpoints.training.orbax_reports import untold_failures
from flax_distil.core.errors import InputError
from flax_distil.core.failures import short_reason
from flax_distil.parallel.processes import all_gather_object, raise_on_all_hosts
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.paths import AnyPath
from flax_distil.storage.transports import protocol_of

log = logging.getLogger(__name__)

CHECKPOINTS_NAME = "checkpoints"
"""Folder of the training checkpoints in that of a run."""

_STEP_PREFIX = "checkpoint"
_FITS = 0.8
"""Part of the bytes of a state that a checkpoint takes when it is well compressed."""

_TIMEOUT_SECONDS = 600
"""Time that a save in the background may take, and that processes wait for each other at its end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Result of :meth:`TrainingCheckpoints.restore`.

    Attributes:
        step: Step at which it was saved.
        state: Pytree with the structure, types and shardings of the template.
        data: Position in the data, as it was given to :meth:`TrainingCheckpoints.save`.
        about: What else was given to :meth:`TrainingCheckpoints.save`.
    """

    step: int
    state: Any
    data: dict[str, Any]
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def checkpoint_name(step: int | str) -> str:
    """Return the name of the folder of the checkpoint of a step, or their pattern for ``*``."""
    return f"{_STEP_PREFIX}_{step}"


def check_supported(folder: AnyPath) -> None:
    """Check that checkpoints can be written to a folder.

    Raises:
        InputError: If Orbax cannot.
    """
    if isinstance(folder, BucketPath) and protocol_of(str(folder)) != "gs":
        raise InputError(
            f"output_dir {str(folder)!r}: Orbax writes training checkpoints to this machine and gs:// only: "
            "name one of these, and copy the export afterwards"
        )


class TrainingCheckpoints:
    """The training checkpoints in ``folder/checkpoint_<step>``; all processes call every method together.

    Saving copies the state from the devices, and then writes it in the background. A checkpoint gets its name
    only when it is complete, so a killed process leaves no incomplete checkpoint. A save that fails is
    reported and noted in ``failure``, and nothing is raised. What is read is compared with checksums. Use it
    as a context manager, or call :meth:`close` at the end.

    Attributes:
        failure: Why the last save failed, in one sentence; None if it did not.
        kept_step: Step of a checkpoint that is kept beyond ``save_total_limit``.
        on_saved: Called on every process with the step of each checkpoint that became complete.
    """

    def __init__(
        self, folder: str | AnyPath, *, save_total_limit: int | None = None, read_only: bool = False
    ) -> None:
        """Open a folder of checkpoints.

        Args:
            folder: Folder of the checkpoints, here or in a bucket, created if absent; remains of interrupted
                saves are removed.
            save_total_limit: Number of the latest checkpoints to keep; None keeps all.
            read_only: Create, remove and rename nothing.

        Raises:
            InputError: If ``save_total_limit`` is not positive.
        """
        if save_total_limit is not None and save_total_limit < 1:
            raise InputError(
                f"save_total_limit is {save_total_limit}: expected 1 or more, or none to keep all"
            )
        import orbax.checkpoint as ocp  # takes a second to import
        from etils import epath

        name = str(folder)
        self.folder = epath.Path(
            name if "://" in name else Path(name).absolute()
        )  # Orbax takes no relative ones
        self.failure: str | None = None
        self._ocp, self._limit, self._read_only = ocp, save_total_limit, read_only
        self.kept_step: int | None = None
        self.on_saved: Callable[[int], None] = lambda step: None
        self._own: set[int] = set()
        self._pending: int | None = None
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(untold_failures())
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                step_prefix=_STEP_PREFIX,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                preservation_policy=_Preservation(self),
                async_options=ocp.options.AsyncOptions(timeout_secs=_TIMEOUT_SECONDS),
            ),
            item_names=(STATE, DATA),
            item_handlers={STATE: ocp.StandardCheckpointHandler(), DATA: ocp.JsonCheckpointHandler()},
        )

    def save(
        self,
        step: int,
        state: Any,
        data: dict[str, Any] | None = None,
        *,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Start saving, and return once the state may be overwritten (or donated).

        This waits for the previous save first. A step that was saved already is not saved again. Checkpoints
        of later steps, and one of this step, that an earlier run left are renamed. If storage fails, the
        failure is logged and noted.

        Args:
            step: Number of optimizer updates so far.
            state: Pytree of arrays and numbers.
            data: Position in the data, as values that JSON can hold.
            about: Further facts to keep, as values that JSON can hold.
        """
        self.wait()
        if step in self._own and step in self._manager.all_steps():
            return
        record = {
            "step": step,
            "data": data or {},
            "about": dict(about or {}),
            "leaves": describe_leaves(state),
            "checksums": leaf_checksums(state),
        }
        items = {
            STATE: self._ocp.args.StandardSave(state),
            DATA: self._ocp.args.JsonSave(seal(record)),
        }
        self._pending = step
        try:
            raise_on_all_hosts(lambda: self._check_room(_FITS * _byte_count(state)))
            for later in self._manager.all_steps():
                if later >= step:
                    self._rename(later, "earlier")
            self._manager.save(step, args=self._ocp.args.Composite(**items), force=True)
        except Exception as error:
            self._end_save(short_reason(error))

    def restore(self, template: Any, step: int | None = None) -> TrainingState:
        """Read a checkpoint back, and compare it with its checksums.

        Where the latest one is damaged, a warning tells what is wrong, it is renamed to
        ``damaged-checkpoint_<step>``, and the one before is read.

        Args:
            template: Pytree of the state, with arrays or ``jax.ShapeDtypeStruct`` leaves whose types and
                shardings the result has.
            step: Step of the checkpoint; None for the latest one.

        Returns:
            The state, the position in the data, and the step.

        Raises:
            InputError: If there is no such checkpoint, it was saved with another model or optimizer, it (or
                every one) is damaged, or storage fails.
        """
        steps = self._choose(step)
        damaged: list[int] = []
        for number in reversed(steps):
            try:
                reader = CheckpointReader(self._place(number))
                record = reader.record()
                state = reader.state(template, record)
            except DamagedCheckpoint as error:
                damaged.append(number)
                if number != steps[0]:
                    log.warning(
                        "checkpoint %d in %s is damaged and not used (%s): the one before is tried",
                        number, self.folder, error,
                    )  # fmt: skip
                else:
                    raise self._all_damaged(damaged, step, error) from error
            else:
                for other in damaged:
                    self._rename(other, "damaged")
                self._own.add(number)
                return TrainingState(step=number, state=state, data=record["data"], about=record["about"])
        raise AssertionError("there is a checkpoint to read")  # _choose raises otherwise

    def restore_branch(self, name: str, step: int) -> dict[str, Any]:
        """Read one branch of a state of nested dictionaries into the memory of the host, and check it.

        Args:
            name: Name of the branch, such as ``params``.
            step: Step of the checkpoint, which may have been saved by any number of processes.

        Raises:
            InputError: If there is no such checkpoint, or it is damaged.
        """
        (step,) = self._choose(step)
        reader = CheckpointReader(self._place(step))
        try:
            return reader.branch(name, reader.record())
        except DamagedCheckpoint as error:
            raise self._all_damaged([step], step, error) from error

    def read_data(self, step: int | None = None) -> dict[str, Any]:
        """Return what :meth:`save` was given as ``data``, as :meth:`read_record` does."""
        return self.read_record(step)["data"]

    def read_record(self, step: int | None = None) -> dict[str, Any]:
        """Return the description of a checkpoint without reading its state.

        Its entries are ``step``, ``data`` and ``about`` as they were given to :meth:`save`, and the
        descriptions and checksums of the leaves, ``leaves`` and ``checksums``, by their paths.

        Args:
            step: Step of the checkpoint; None for the latest one whose description is whole.

        Raises:
            InputError: If there is no such checkpoint, or its description is damaged.
        """
        steps = self._choose(step)
        for number in reversed(steps):
            try:
                return CheckpointReader(self._place(number)).record()
            except DamagedCheckpoint as error:
                problem = self._all_damaged([number], step, error)
        raise problem

    def steps(self) -> list[int]:
        """Wait for the current save, and return the steps of the complete checkpoints in ascending order."""
        self.wait()
        return sorted(self._manager.all_steps())

    def wait(self) -> None:
        """Wait until the current save is complete; if it failed, say so and note why."""
        if self._pending is None:
            return
        reason = None
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            reason = short_reason(error)
        self._end_save(next(filter(None, all_gather_object(reason)), None))

    def poll(self) -> None:
        """Do as :meth:`wait` does if the current save has ended on all processes, and nothing otherwise."""
        if self._pending is not None and all(all_gather_object(not self._manager.is_saving_in_progress())):
            self.wait()

    def close(self) -> None:
        """Wait for the current save, and stop the background threads."""
        with self._stack:
            self.wait()
            self._manager.close()

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            with self._stack:  # alone, since other processes may not have come here
                self._manager.close()
        except Exception as failed:
            log.warning("the last save into %s failed too (%s)", self.folder, short_reason(failed))

    def _choose(self, step: int | None) -> list[int]:
        """Return the steps that may be read, the best choice last."""
        steps = self.steps()
        if step is None and not steps:
            raise InputError(f"{self.folder} holds no training checkpoint to resume from")
        if step is not None and step not in steps:
            raise InputError(f"{self.folder} holds no checkpoint of step {step}: it has {steps or 'none'}")
        return steps if step is None else [step]

    def _end_save(self, reason: str | None) -> None:
        """Note how the current save ended; remove its remains if it failed."""
        step, self._pending = self._pending, None
        assert step is not None  # there is a save to end
        if reason is None:
            self.failure = None
            self._own.add(step)
            self.on_saved(step)
            return
        self.failure = f"checkpoint {step} in {self.folder} could not be saved ({reason})"
        log.warning("%s: training goes on, and saving is tried again", self.failure)
        with contextlib.suppress(Exception):  # storage may be gone; remains are removed at the next start
            if jax.process_index() == 0:
                for remains in self.folder.glob(f"{_STEP_PREFIX}_{step}.orbax-checkpoint-tmp*"):
                    remains.rmtree(missing_ok=True)
        all_gather_object(None)
        with contextlib.suppress(Exception):
            self._manager.reload()

    def _check_room(self, needed: float) -> None:
        """Compare the free space with the bytes needed, and write a small file.

        What fails here fails on all processes, before they wait for each other, and a disk that is too full
        is not filled, so that logs can still be written.
        """
        if "://" not in str(self.folder) and shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        probe = self.folder / f".probe-{jax.process_index()}"
        probe.write_bytes(bytes(4096))
        probe.unlink()

    def _rename(self, step: int, prefix: str) -> None:
        """Set a checkpoint aside; one of the same name that was set aside before is replaced."""
        if self._read_only:
            return
        target = self.folder / f"{prefix}-{_STEP_PREFIX}_{step}"
        if jax.process_index() == 0:
            target.rmtree(missing_ok=True)
            self._place(step).rename(target)
        log.info("checkpoint %d is kept as %s: delete it if it is not needed", step, target)
        all_gather_object(None)
        self._manager.reload()

    def _place(self, step: int) -> Any:
        return self.folder / checkpoint_name(step)

    def _all_damaged(self, damaged: list[int], step: int | None, error: Exception) -> InputError:
        if step is not None:
            return InputError(
                f"checkpoint {step} in {self.folder} is damaged ({error}): choose another of "
                f"{self.steps()}, or latest"
            )
        return InputError(
            f"every checkpoint in {self.folder} is damaged, also the earliest, {damaged[-1]} ({error}): "
            "begin again with overwrite_output_dir or in another output_dir"
        )


def _byte_count(state: Any) -> int:
    return sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(state))


class _Preservation:
    """Orbax's policy of what to preserve: the latest checkpoints, and the one that is to be kept."""

    def __init__(self, checkpoints: TrainingCheckpoints) -> None:
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Return whether to preserve each checkpoint."""
        limit, kept = self._checkpoints._limit, self._checkpoints.kept_step
        latest = sorted(info.step for info in checkpoints)[-limit if limit else None :]
        return [info.step in latest or info.step == kept for info in checkpoints]
