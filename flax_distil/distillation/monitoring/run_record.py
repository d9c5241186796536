"""The file ``run.json``: what a run is made of, and on what each of its attempts ran."""

import dataclasses
import datetime
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from flax_distil.checkpoints.identity import model_identity
from flax_distil.core.environment import environment
from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten, leaves, replace
from flax_distil.core.process_age import command_age
from flax_distil.core.secrets import without_secrets
from flax_distil.data.training.training_data import TrainingData
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.training_config import ENDING_SCHEDULES, SCHEDULED
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.storage.paths import AnyPath, read_text, write_whole

log = logging.getLogger(__name__)

RUN_NAME = "run.json"

_GROUPS_WITHOUT_EFFECT = {
    "card",
    "evaluation",
    "checkpoints",
    "reporting",
    "output",
    "hub",
    "devices",
    "weights",
}
_WITHOUT_EFFECT = {
    "cache_dir", "dataset_cache_dir", "source_retry_seconds", "dataloader_num_workers",
    "preprocessing_num_workers", "teacher_sharding", "use_scan", "gradient_checkpointing",
    "encoder_cache_dir", "dry_run", "num_train_epochs",
    "per_device_train_batch_size", "gradient_accumulation_steps", "global_batch_size",
}  # fmt: skip
"""Settings that change no update but for its last bits; epochs count as max_steps, batches as a whole."""

_IDENTIFIED = {
    "teacher_model_name_or_path": "teacher_weights", "teacher_model_revision": "teacher_weights",
    "teacher_subfolder": "teacher_weights", "model_name_or_path": "model_weights",
    "model_revision": "model_weights", "subfolder": "model_weights", "train_dataset_name": "training_data",
}  # fmt: skip
"""Names of things that may move: what counts is whether the thing itself is another one."""

_SHOWN_CHANGES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What decides the results of a run.

    Attributes:
        given: Settings that differ from their defaults, by flag.
        settings: All settings by flag, with what was left open decided, and ``samples_per_update``.
        identities: What the weights and the training data are known by, however they are named.
        origins: Models and data sets with their sizes, ids and licenses, for those who read about the run.
    """

    given: dict[str, Any]
    settings: dict[str, Any]
    identities: dict[str, Any]
    origins: dict[str, Any] = dataclasses.field(default_factory=dict)


def describe_run(
    given: DistillConfig, decided: DistillConfig, train: TrainingData, *, max_steps: int, batch_size: int
) -> RunDescription:
    """Describe a run without any secret.

    Args:
        given: Configuration as the user gave it.
        decided: Configuration with ``freeze_encoder`` decided.
        train: The training data.
        max_steps: Number of updates of the whole run.
        batch_size: Number of samples of an update, over all devices.
    """
    defaults = {leaf.name: leaf.default for leaf in leaves(DistillConfig)}
    is_made = not decided.model.model_name_or_path and not decided.student.student_decoder_layer_indices
    decided = replace(
        decided,
        max_steps=max_steps,
        ce_weight=decided.training_loss.ce_weight,
        kl_weight=decided.training_loss.kl_weight,
        teacher_dtype=decided.teacher.teacher_dtype or decided.teacher_options.dtype,
        student_decoder_layers=decided.student.layers["decoder_layers"] if is_made else None,
    )
    teacher = decided.teacher.teacher_model_name_or_path
    return RunDescription(
        given=_as_json({name: value for name, value in flatten(given).items() if value != defaults[name]}),
        settings=_as_json(flatten(decided)) | {"samples_per_update": batch_size},
        identities={
            "teacher_weights": model_identity(decided.teacher.source(decided.model)) if teacher else None,
            "model_weights": model_identity(decided.model.source)
            if decided.model.model_name_or_path
            else None,
            "training_data": "-".join(source.fingerprint() for source in train.sources),
        },
    )


class RunRecord:
    """The description of a run, and of all attempts at it, in ``run.json`` of its ``output_dir``."""

    def __init__(self, folder: AnyPath, description: RunDescription):
        self._path, self._now = folder / RUN_NAME, description
        self._changed: dict[str, Any] = {}

    def compare(self, *, step: int, allow_changes: bool) -> None:
        """Compare with the earlier attempts, whose work is resumed.

        Args:
            step: Number of updates that have been done.
            allow_changes: Whether the run may go on with other settings.

        Raises:
            InputError: If settings differ that change the run, and that is not allowed.
        """
        before = self._read()
        if before is None:
            log.warning("%s cannot be read: settings are not compared with those before", self._path)
            return
        changes = list(_changes(before, self._now, step=step))
        serious = [text for _, text, changes_run in changes if changes_run]
        if serious and not allow_changes:
            raise InputError(
                f"the run in {str(self._path.parent)!r} had other settings: {_listed(serious)}; give "
                "those it had, choose another output_dir, or set allow_changed_settings to go on with these"
            )
        if changes:
            log.info("settings differ from those before: %s", _listed([text for _, text, _ in changes]))
        self._changed = {name: before["settings"].get(name) for name, _, _ in changes}

    def write(self, partitioner: Partitioner) -> None:
        """Add this attempt to the file.

        Raises:
            OSError: If it cannot be written.
        """
        started = datetime.datetime.fromtimestamp(time.time() - command_age(), datetime.UTC)
        attempt = {
            "started": started.isoformat(timespec="seconds"),
            "arguments": self._now.given,
            **({"settings_before": self._changed} if self._changed else {}),
            "devices": _describe_devices(partitioner),
            **environment(),
        }
        before = (self._read() or {}).get("attempts")
        content = {
            "settings": self._now.settings,
            "identities": self._now.identities,
            **self._now.origins,
            "attempts": [*(before if isinstance(before, list) else ()), attempt],
        }
        write_whole(self._path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(read_text(self._path))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and isinstance(found.get("settings"), dict) else None


def step_to_resume(checkpoints: AnyPath, wanted: str | None) -> int | None:
    """Return the step that ``resume_from_checkpoint`` means; None if nothing is resumed.

    Args:
        checkpoints: Folder of the checkpoints.
        wanted: Value of the user's ``resume_from_checkpoint``.
    """
    if wanted is None or wanted.isdigit():
        return None if wanted is None else int(wanted)
    names = (path.name.rpartition("checkpoint_") for path in checkpoints.glob("checkpoint_*"))
    return max((int(step) for before, _, step in names if not before and step.isdigit()), default=None)


def _changes(before: Mapping[str, Any], now: RunDescription, *, step: int) -> Iterator[tuple[str, str, bool]]:
    """Yield name and description of what differs, and whether it changes the run."""
    earlier, identities = before["settings"], before.get("identities") or {}
    harmless = _WITHOUT_EFFECT | {
        leaf.name for leaf in leaves(DistillConfig) if leaf.path[0] in _GROUPS_WITHOUT_EFFECT
    }
    for name, value in now.settings.items():
        if name not in earlier or earlier[name] == value:  # a setting that is new had its default
            continue
        matters, thing = name not in harmless, _IDENTIFIED.get(name)
        if thing is not None and now.identities[thing] is not None:
            matters = identities.get(thing) != now.identities[thing]
        note = ""
        if name == "max_steps":
            schedule = now.settings["lr_scheduler_type"]
            rates = [f"the learning rates, since the {schedule} schedule ends there"]
            changed = rates * (schedule in ENDING_SCHEDULES) + [
                f"{setting}, since its schedule ends there"
                for setting in SCHEDULED
                if now.settings[f"{setting}_schedule"] != "constant"
            ]
            matters = bool(changed) and step < value
            note = f", and with it {' and '.join(changed)}"
        yield name, f"{name} was {earlier[name]!r} and is {value!r}{note * matters}", matters
    for thing, value in now.identities.items():
        known = identities.get(thing)
        renamed = any(now.settings[name] != earlier.get(name) for name in _names_of(thing))
        if not renamed and None not in (known, value) and known != value:
            yield thing, f"{_names_of(thing)[0]} has other contents than before", True


def _names_of(thing: str) -> list[str]:
    return [name for name, named in _IDENTIFIED.items() if named == thing]


def _listed(texts: list[str]) -> str:
    more = len(texts) - _SHOWN_CHANGES
    return ", ".join(texts[:_SHOWN_CHANGES]) + (f" and {more} more" if more > 0 else "")


def _describe_devices(partitioner: Partitioner) -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "runtime": device.client.platform_version,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        "mesh": {str(axis): int(size) for axis, size in partitioner.mesh.shape.items()},
    }


def _as_json(value: Any) -> Any:
    """Return a value as JSON gives it back, without the secrets of addresses."""
    if isinstance(value, Mapping):
        return {name: _as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    return without_secrets(value) if isinstance(value, str) else value
