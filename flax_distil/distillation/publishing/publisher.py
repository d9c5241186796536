"""Uploads of a run: the student of each checkpoint in the background, and the result at the end."""

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import jax
import jax.numpy as jnp

from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.hub.background_push import BackgroundPush
from flax_distil.checkpoints.hub.cards import CARD_NAME
from flax_distil.checkpoints.hub.config import HubTrainingConfig
from flax_distil.checkpoints.hub.upload import push_to_hub, upload
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.checkpoints.training.saved_params import checkpoint_folder, link_checkpoint, read_params
from flax_distil.checkpoints.training.training_checkpoints import CHECKPOINTS_NAME, checkpoint_name
from flax_distil.core.errors import InputError
from flax_distil.core.tree import merge
from flax_distil.distillation.monitoring.training_log import METRICS_NAME, read_metrics
from flax_distil.distillation.publishing.card_subject import CardSubject
from flax_distil.distillation.publishing.evaluation_table import training_evaluations
from flax_distil.distillation.publishing.model_card import write_model_card
from flax_distil.distillation.publishing.run_origins import describe_model
from flax_distil.distillation.publishing.run_summary import read_run_summary
from flax_distil.distillation.publishing.usage import RepositoryFormat
from flax_distil.distillation.setup.models import DistillModels
from flax_distil.storage.paths import AnyPath, read_text

PUBLISHING_NAME = ".publishing"
"""Folder in that of a run for what is being pushed; what a killed run left there is removed."""


def check_strategy(config: HubTrainingConfig, folder: AnyPath) -> None:
    """Raise ``InputError`` if checkpoints are to be uploaded that are not on this machine."""
    if config.push_to_hub and config.hub_strategy == "all_checkpoints" and not isinstance(folder, Path):
        raise InputError(
            f"hub_strategy all_checkpoints uploads checkpoints of this machine, and output_dir is "
            f"{str(folder)!r}: choose every_save, or name a folder here"
        )


class Publisher:
    """Pushes the state of a run to its repository; a context manager, on the leading process alone.

    The student of a checkpoint is read back from where it was saved, so neither the training loop nor a
    device waits for a push or takes part in it.

    Args:
        models: The models of the run, with its configuration.
        folder: Folder of the run.
        repository: Repository on the Hub; None pushes nothing.
    """

    def __init__(self, models: DistillModels, folder: AnyPath, repository: str | None) -> None:
        self._models, self._folder, self._repository = models, folder, repository
        self._hub = models.config.hub
        self._background: BackgroundPush | None = None
        if repository is not None and isinstance(folder, Path):
            shutil.rmtree(folder / PUBLISHING_NAME, ignore_errors=True)
        if repository is not None and self._hub.hub_strategy != "end":
            self._background = BackgroundPush(self._push, name=repr(repository))

    def saved(self, step: int) -> None:
        """Push the checkpoint of a step, which is complete, as soon as no other push is running."""
        if self._background is not None:
            self._background.request(step)

    def write_card(self, into: Path, step: int) -> None:
        """Write the card of the student of a step, unless the folder of the run has one of somebody else."""
        models, folder = self._models, self._folder
        run = read_run_summary(folder, step=step)
        card = folder / CARD_NAME
        dtype = models.config.weights.export_dtype
        subject = CardSubject(
            repository=self._repository or folder.name,
            model=describe_model(models.student.config),
            is_multilingual=read_tokenizer(models.student.files)[0].special.is_multilingual,
            formats={"hf": RepositoryFormat(quantization=dtype)},
            run=run,
            evaluated=[] if run is None else training_evaluations(run),
            license=models.config.card.license,
        )
        write_model_card(subject, into, existing=read_text(card) if card.is_file() else None)

    def push_result(self) -> str | None:
        """Push the finished folder of the run.

        It waits for a push in the background, so that the result is the last commit.

        Returns:
            Why it failed; None if it did not, or was not asked for.
        """
        if self._background is not None:
            self._background.finish()
        return upload(self._folder, self._repository, self._hub, subfolders=self._checkpoints())

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._background is not None:
            self._background.abandon()

    def _push(self, step: int, stop: threading.Event) -> None:
        """Export the student of a checkpoint into a scratch folder, and push it in one commit."""
        assert self._repository is not None  # otherwise there is no background
        with self._scratch() as scratch:
            self._write_student(step, scratch)
            lines = [line for line in read_metrics(self._folder) if line["step"] <= step]
            self.write_card(scratch, step)
            (scratch / METRICS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
            below = f"{CHECKPOINTS_NAME}/{checkpoint_name(step)}"
            push_to_hub(
                scratch,
                self._repository,
                token=self._hub.hub_token,
                private=self._hub.hub_private_repo,
                revision=self._hub.hub_revision,
                commit_message=f"Student after step {step}",
                subfolders={below: below} if self._hub.hub_strategy == "all_checkpoints" else None,
                stop=stop,
            )

    def _write_student(self, step: int, scratch: Path) -> None:
        models, folder = self._models, self._folder
        if isinstance(folder, Path):
            place = str(link_checkpoint(folder, step, scratch))
        else:
            place = checkpoint_folder(folder, step)
        with jax.default_device(_host()):  # of this thread alone: the devices go on training
            export_checkpoint(
                merge(read_params(place), models.kept),
                models.student.config,
                scratch,
                files=models.student.files,
                dtype=jnp.dtype(models.config.weights.export_dtype),
            )

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Yield an empty folder on the disk of the run, or on that of this machine for one in a bucket."""
        if not isinstance(self._folder, Path):
            with tempfile.TemporaryDirectory(prefix="flax-distil-") as scratch:
                yield Path(scratch)
            return
        own = self._folder / PUBLISHING_NAME
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def _checkpoints(self) -> dict[str, str]:
        """Return the checkpoints of the run that belong to its repository."""
        if self._hub.hub_strategy != "all_checkpoints":
            return {}
        names = (path.name for path in (self._folder / CHECKPOINTS_NAME).glob(checkpoint_name("*")))
        complete = (name for name in names if name.rpartition("_")[2].isdigit())
        return {f"{CHECKPOINTS_NAME}/{name}": f"{CHECKPOINTS_NAME}/{name}" for name in sorted(complete)}


def _host() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may name only the accelerator
        return jax.local_devices()[0]
