"""Open the services that a run reports to; a failure of one ends nothing and does not touch the others."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flax_distil.core.failures import short_reason
from flax_distil.core.secrets import without_secrets
from flax_distil.distillation.monitoring.config import ReportingConfig
from flax_distil.distillation.monitoring.reporters.reporter import Reporter
from flax_distil.distillation.monitoring.reporters.tensorboard import TensorBoardReporter
from flax_distil.distillation.monitoring.reporters.weights_and_biases import WandbReporter, check_wandb
from flax_distil.storage.paths import AnyPath

log = logging.getLogger(__name__)

TENSORBOARD_NAME = "tensorboard"

_TITLES = {"tensorboard": "TensorBoard's files", "wandb": "Weights & Biases"}


def check_reporters(config: ReportingConfig) -> None:
    """Check that the packages of the services are installed.

    Raises:
        InputError: If one is not, or has no key.
    """
    if "wandb" in config.services:
        check_wandb()


class Reporters:
    """The services of a run, each called whatever happens to the others.

    Args:
        config: Names the services.
        folder: The ``output_dir`` of the run.
        local: The same folder, or one on this machine whose files are copied there.
        first_step: Number of updates done before, by the run that is resumed.
        settings: Settings of the run by flag.
    """

    def __init__(
        self,
        config: ReportingConfig,
        folder: AnyPath,
        local: Path,
        *,
        first_step: int = 0,
        settings: Mapping[str, Any] | None = None,
    ):
        purge = first_step + 1 if first_step else None
        settings = settings or {}
        makers: dict[str, Callable[[], Reporter]] = {
            "tensorboard": lambda: TensorBoardReporter(
                local / TENSORBOARD_NAME, purge_step=purge, settings=settings
            ),
            "wandb": lambda: WandbReporter(folder, name=config.run_name or folder.name, settings=settings),
        }
        self._reporters = {name: makers[name]() for name in config.services}
        self._failed: set[str] = set()

    def each(self, call: Callable[[Reporter], None]) -> None:
        """Call a function with every service; a failure is warned of once, until the service works again."""
        for name, reporter in self._reporters.items():
            try:
                call(reporter)
                self._failed.discard(name)
            except Exception as error:  # whatever a service raises: training goes on
                if name not in self._failed:
                    log.warning("nothing is reported to %s (%s)", _TITLES[name], _reason(error))
                self._failed.add(name)


def _reason(error: Exception) -> str:
    return without_secrets(short_reason(error))
