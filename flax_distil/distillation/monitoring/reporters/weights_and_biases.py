"""Weights & Biases: a run there, which a resumed run continues; whatever fails there ends nothing here."""

import importlib.util
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.distillation.evaluation.predictions import Prediction
from flax_distil.distillation.monitoring.reporters.reporter import Histogram
from flax_distil.storage.paths import AnyPath, read_text, write_whole

WANDB_NAME = "wandb.json"
"""File in ``output_dir`` that holds the id of the run, by which it is continued."""

DEFAULT_PROJECT = "flax-distil"

_STEP = "train/global_step"
"""The metric that counts updates, as in transformers."""

_INIT_SECONDS = 60.0
"""Training waits no longer for the beginning of the run."""

_FINISH_SECONDS = 120.0
"""The end of a run does not wait longer for uploads; ``wandb sync`` delivers what is left."""


def check_wandb() -> None:
    """Check that wandb is installed, and that it knows a key unless nothing is sent.

    Raises:
        InputError: If not.
    """
    if importlib.util.find_spec("wandb") is None:
        raise InputError(
            'report_to wandb needs a package that is not installed: pip install "flax-distil[wandb]"'
        )
    if os.environ.get("WANDB_MODE", "online") != "online":
        return
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise InputError(
            "report_to wandb finds no key of Weights & Biases: run `wandb login`, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline to keep the run on this machine"
        )


class WandbReporter:
    """A run at Weights & Biases, begun when there is something to report.

    Args:
        folder: The ``output_dir`` of the run. If it is local, wandb keeps its files there, in ``wandb``;
            otherwise in WANDB_DIR, or the current folder.
        name: Name of the run.
        settings: Settings of the run by flag, without secrets.
    """

    def __init__(self, folder: AnyPath, *, name: str, settings: Mapping[str, Any]):
        self._folder, self._name, self._settings = folder, name, settings
        self._run: Any = None
        self._is_refused = False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report values of a step, in the groups ``train/`` and ``eval/``."""
        self._log(step, {_grouped(name): value for name, value in values.items()})

    def predictions(self, step: int, by_set: Mapping[str, Sequence[Prediction]]) -> None:
        """Report a table of samples for each data set."""
        import wandb

        columns: list[str | int] = ["sample", "reference", "student", "errors", "words"]
        tables = {
            f"predictions/{name}": wandb.Table(columns=columns, data=[_row(sample) for sample in samples])
            for name, samples in by_set.items()
        }
        self._log(step, tables)

    def histograms(self, step: int, found: Mapping[str, Histogram]) -> None:
        """Report histograms."""
        import wandb

        self._log(
            step,
            {name: wandb.Histogram(np_histogram=(one.counts, one.edges)) for name, one in found.items()},
        )

    def close(self) -> None:
        """Send what is left, for two minutes at most."""
        if self._run is not None:
            self._run.finish()

    def _log(self, step: int, values: dict[str, Any]) -> None:
        if self._is_refused:
            return
        if self._run is None:
            self._is_refused = True  # unless it begins: no log line may wait for it again
            self._run = self._begin()
            self._is_refused = False
        self._run.log({_STEP: step, **values})

    def _begin(self) -> Any:
        import wandb

        options = wandb.Settings(
            quiet=True,
            console="off",  # the progress line is not for a file
            save_code=False,
            disable_git=True,
            x_disable_meta=True,  # it would hold the command line, and with it a token
            init_timeout=_INIT_SECONDS,
            finish_timeout=_FINISH_SECONDS,
        )
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT,
            name=self._name,
            id=self._run_id(),
            resume="allow",
            config=dict(self._settings),
            allow_val_change=True,
            dir=str(self._folder) if isinstance(self._folder, Path) else None,
            settings=options,
        )
        run.define_metric(_STEP)
        run.define_metric("*", step_metric=_STEP)
        return run

    def _run_id(self) -> str:
        """Return the id of the run that is continued, or a new one, which is noted."""
        path = self._folder / WANDB_NAME
        if path.is_file():
            return str(json.loads(read_text(path))["id"])
        identity = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        write_whole(path, json.dumps({"id": identity}) + "\n")
        return identity


def _row(sample: Prediction) -> list[Any]:
    return [sample.id, sample.reference, sample.hypothesis, sample.errors, sample.words]


def _grouped(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
