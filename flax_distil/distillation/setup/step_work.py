"""What a training step computes, as the settings of a run say."""

from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.shardings import TrainShardings
from flax_distil.model.operations import StepWork


def step_work(config: DistillConfig, shardings: TrainShardings, batch: int, tokens: int) -> StepWork:
    """Return what a step computes.

    Args:
        config: Configuration of the run, with ``freeze_encoder`` decided.
        shardings: Says which weights there are.
        batch: Number of samples of a micro-batch.
        tokens: Number of label positions per sample.
    """
    return StepWork(
        student=shardings.step.student,
        teacher=shardings.step.teacher,
        batch=batch * config.gradient_accumulation_steps,
        tokens=tokens,
        encodes=not config.cache_encoder_states,
        teacher_encodes="encoder" in shardings.teacher.shapes,
        trains_encoder=not config.freeze.freeze_encoder,
        trains_decoder=not config.freeze.freeze_decoder,
        with_kl=config.training_loss.peak("kl_weight") > 0,
        recomputes=config.compute.gradient_checkpointing == "full",
    )
