"""Warn where the training data are too few for a shallow student to learn from."""

import logging

import jax

from flax_distil.data.training.training_data import TrainingData
from flax_distil.distillation.config import DistillConfig

log = logging.getLogger(__name__)

FEWEST_HOURS = 300
"""Hours of audio below which students of two decoder layers were never seen to work.

Source: the ablation of kotoba-tech/kotoba-whisper (README.md), with 8.5, 100 and 1,000 hours; table 11 of
Distil-Whisper, arXiv 2311.00430, which begins at 435 hours.
"""


def warn_of_few_hours(config: DistillConfig, train: TrainingData) -> None:
    """Warn, on the leading process, where a teacher is distilled on less than ``FEWEST_HOURS``.

    Nothing is said of fine-tuning without a teacher, and where the hours are not known from tables.
    """
    hours = train.hours if config.uses_teacher and jax.process_index() == 0 else None
    if hours is not None and hours < FEWEST_HOURS:
        log.warning(
            "the training data have %.1f hours, and with less than about %d hours students of few decoder "
            "layers collapse (two layers: 30 to 41 %% character errors with 100 hours, 11 to 15 %% with "
            "1,000; ablation of kotoba-tech/kotoba-whisper): add data, of related languages too, keep more "
            "decoder layers, or go on from a distilled student with model_name_or_path",
            hours, FEWEST_HOURS,
        )  # fmt: skip
