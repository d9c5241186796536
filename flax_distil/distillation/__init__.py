"""The distillation objective: losses, optimiser, train state, pure steps."""

from flax_distil.distillation.losses import (
    LossWeights,
    TokenLossSums,
    hidden_state_error,
    matched_teacher_layers,
    token_losses,
)
from flax_distil.distillation.optimiser import OptimiserConfig, make_optimiser
from flax_distil.distillation.schedules import (
    SCHEDULE_PARAMETERS,
    SCHEDULES,
    ScheduleConfig,
    learning_rate_schedule,
)
from flax_distil.distillation.state import Freezing, TrainState, init_state, split_student
from flax_distil.distillation.steps import (
    LARGEST_LOSS,
    PRECISIONS,
    Batch,
    StepConfig,
    apply_gradients,
    compute_gradients,
    encode,
    eval_step,
    train_step,
)

__all__ = [
    "LARGEST_LOSS",
    "PRECISIONS",
    "SCHEDULES",
    "SCHEDULE_PARAMETERS",
    "Batch",
    "Freezing",
    "LossWeights",
    "OptimiserConfig",
    "ScheduleConfig",
    "StepConfig",
    "TokenLossSums",
    "TrainState",
    "apply_gradients",
    "compute_gradients",
    "encode",
    "eval_step",
    "hidden_state_error",
    "init_state",
    "learning_rate_schedule",
    "make_optimiser",
    "matched_teacher_layers",
    "split_student",
    "token_losses",
    "train_step",
]
