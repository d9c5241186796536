"""The end of training: which parameters are exported, and the last save, which may have to be repeated."""

import logging
import time

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.distillation.train_state import TrainState
from flax_distil.distillation.trainer import Trainer

log = logging.getLogger(__name__)

_PAUSES = (1, 5, 15)
"""Seconds before each further try of the last save."""


def best_params(trainer: Trainer, checkpoints: TrainingCheckpoints, state: TrainState) -> tuple[Params, int]:
    """Return the parameters to export, on the host, and the step that they are of.

    They are those of the best evaluation if asked for, and otherwise, or where their checkpoint cannot be
    read, those of ``state``.
    """
    best, partitioner = trainer.best, trainer.partitioner
    last = int(partitioner.device_get(state.step))
    if trainer.config.checkpoints.load_best_model_at_end and best.step is not None:
        figures = f"{best.metric} {best.value:g} at step {best.step}"
        if best.step == last:
            log.info("the last model is the best one: %s", figures)
        else:
            try:
                params = checkpoints.restore_branch("params", best.step)
            except InputError as error:
                log.warning("the best model (%s) is not exported, but the last one: %s", figures, error)
            else:
                log.info("the best model is exported: %s", figures)
                return params, best.step
    whole: Params = partitioner.device_get(state.params)
    return whole, last


def save_until_done(trainer: Trainer, checkpoints: TrainingCheckpoints, state: TrainState) -> None:
    """Wait for the last save, and try it again if it failed.

    Raises:
        InputError: If it goes on failing.
    """
    checkpoints.wait()
    for pause in _PAUSES:
        if checkpoints.failure is None:
            return
        time.sleep(pause)
        trainer.save(checkpoints, int(trainer.partitioner.device_get(state.step)), state)
        checkpoints.wait()
    if checkpoints.failure is not None:
        raise InputError(
            f"{checkpoints.failure}, and training is over: the export is complete; mend the storage, and run "
            "the same command with resume_from_checkpoint to do the steps since the last checkpoint again"
        )
