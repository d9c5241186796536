"""The end of training: which parameters are exported, and the last save, which may have to be repeated."""

import logging
import time

from flax_distil.checkpoints.training_checkpoints import TrainingCheckpoints
from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.distillation.train_state import TrainState
from flax_distil.distillation.trainer import Trainer

log = logging.getLogger(__name__)

_PAUSES = (1, 5, 15)
"""Seconds before each further try of the last save."""


def best_params(trainer: Trainer, checkpoints: TrainingCheckpoints, state: TrainState) -> Params:
    """Return the parameters to export: those of the best evaluation if asked for, else those of ``state``."""
    best, partitioner = trainer.best, trainer.partitioner
    if not trainer.config.checkpoints.load_best_model_at_end or best.step is None:
        return state.params
    figures = f"{best.metric} {best.value:g} at step {best.step}"
    if best.step == int(partitioner.device_get(state.step)):
        log.info("the last model is the best one: %s", figures)
        return state.params
    if best.step not in checkpoints.steps():
        log.warning("the best model (%s) has no checkpoint: the last one is exported", figures)
        return state.params
    restored = checkpoints.restore(partitioner.unreplicate(state), best.step)
    log.info("the best model is exported: %s", figures)
    found: TrainState = partitioner.replicate_like(state, restored.state)
    return found.params


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
