"""Every setting of a distillation run; the command line is generated from this class."""

import dataclasses
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.export import EXPORT_DTYPES
from flax_distil.checkpoints.hub.config import HubModelConfig
from flax_distil.checkpoints.model_config import TeacherSourceConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.paths import user_path
from flax_distil.data.training.config import TrainingDataConfig
from flax_distil.distillation.evaluation.config import EvaluationConfig
from flax_distil.distillation.loss import LossWeights
from flax_distil.distillation.optimizer import OptimizerConfig
from flax_distil.distillation.schedules import SCHEDULE_PARAMETERS
from flax_distil.distillation.train_state import FreezeConfig
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.config import ParallelConfig

PRECISIONS = ("full", "half_mixed", "full_mixed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilConfig(TrainingDataConfig, EvaluationConfig, HubModelConfig, TeacherSourceConfig, ParallelConfig):
    """Distil a Whisper teacher into a student, or fine-tune a model on labels alone.

    Attributes:
        teacher_model_name_or_path: Teacher, a folder or Hub id; leave out to fine-tune on the labels alone.
        model_name_or_path: Student to train; by default one is made of the teacher's layers.
        student_encoder_layers: Encoder layers of a student made here; by default all.
        student_decoder_layers: Decoder layers of a student made here, maximally spaced; by default 2.
        student_decoder_layer_indices: The teacher's decoder layers to copy, instead of a number.
        max_source_positions: Encoder positions of 20 ms of a student made here, in whole seconds: 750 hear
            15 s at a time, and longer training samples are dropped; by default as many as the teacher.
        per_device_train_batch_size: Training samples per device and micro-batch.
        gradient_accumulation_steps: Micro-batches per optimizer update.
        max_steps: Optimizer updates; by default as many as num_train_epochs take.
        num_train_epochs: Passes over the training data, where max_steps is not given.
        learning_rate: Peak learning rate.
        warmup_steps: Updates from 0 to the peak.
        lr_scheduler_type: Learning rates after the warm-up, as transformers names them: linear (to 0),
            cosine, cosine_with_restarts, polynomial, constant (without a warm-up), constant_with_warmup or
            inverse_sqrt.
        lr_scheduler_kwargs: Parameters of the schedule, as transformers names them: num_cycles of cosine and
            cosine_with_restarts, power and lr_end of polynomial, timescale of inverse_sqrt; as
            '{"num_cycles": 2}'.
        weight_decay: Decoupled weight decay; never on biases and norms.
        adam_beta1: Decay of the first moment.
        adam_beta2: Decay of the second moment.
        adam_epsilon: Added to the root of the second moment.
        max_grad_norm: Global norm at which gradients are clipped; 0 for never.
        precision: full (float32 throughout, teacher and products of matrices too, without TF32 or bfloat16
            passes), half_mixed (bfloat16 compute, float32 gradients and optimizer) or full_mixed (bfloat16
            gradients and moments too). The student's parameters and losses are float32 in all.
        ce_weight: Weight of the cross-entropy; by default 0.8 beside a KL term, 1.0 alone.
        kl_weight: Weight of the KL divergence; by default 1.0 with a teacher, 0 without.
        mse_weight: Weight of the squared difference of hidden states.
        temperature: Temperature of both softmaxes of the KL term.
        label_smoothing_factor: Share of the cross-entropy's target that is spread evenly over the vocabulary,
            while training.
        freeze_encoder: Keep the student's encoder; it is shared with the teacher where equal. By default an
            encoder is frozen if it is the teacher's, or if there is no teacher, and trained otherwise.
        freeze_decoder: Keep the student's decoder, but for the token embedding, which is trained.
        freeze_embed_positions: Keep the decoder's position embedding.
        dropout: On embeddings and blocks while training.
        attention_dropout: On attention probabilities while training.
        activation_dropout: Inside the feed-forward while training.
        teacher_dtype: Element type of the teacher's and a shared encoder's weights, and what they compute in;
            by default what the student computes in: bfloat16, and float32 with precision full.
        teacher_sharding: Axes of the mesh that divide the teacher and a shared encoder: fsdp,tensor (as
            the student), fsdp, tensor or none.
        gradient_checkpointing: Recompute layers in the backward pass: full (also what the flag alone, or
            true, means), dots or dots_with_no_batch_dims; by default every activation is kept.
        use_scan: Compile the layers as one loop, in the time of one layer; false unrolls them.
        cache_encoder_states: Keep the frozen encoder's outputs on disk (bfloat16), so that from the
            second epoch on no encoder runs.
        encoder_cache_dir: Where they are kept; by default encoder_cache in output_dir.
        dataloader_num_workers: Threads that decode audio; by default the machine's cores.
        seed: Decides on order, timestamps and dropout.
        logging_steps: Updates between two lines of the logs.
        save_steps: Updates between two checkpoints; one is always written at the end.
        save_total_limit: Checkpoints to keep.
        resume_from_checkpoint: latest, or a step, to continue the run in output_dir.
        output_dir: Folder of the exported student, logs and checkpoints.
        overwrite_output_dir: Replace the checkpoints, logs and student of an earlier run in output_dir;
            other files stay, encoder states too.
        export_dtype: Element type of the exported weights: float16, bfloat16 or float32.
        dry_run: Train nothing: plan, as the command plan does, whose flags are then allowed too.

    Raises:
        InputError: if a value is out of range, or two contradict each other.
    """

    teacher_model_name_or_path: str | None = None
    model_name_or_path: str | None = None
    student_encoder_layers: int | None = None
    student_decoder_layers: int | None = None
    student_decoder_layer_indices: list[int] | None = None
    max_source_positions: int | None = None
    per_device_train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    max_steps: int | None = None
    num_train_epochs: float = 3.0
    learning_rate: float = 1e-4
    warmup_steps: int = 500
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, float] | None = None
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    precision: str = "half_mixed"
    ce_weight: float | None = None
    kl_weight: float | None = None
    mse_weight: float = 0.0
    temperature: float = 2.0
    label_smoothing_factor: float = 0.0
    freeze_encoder: bool | None = None
    freeze_decoder: bool = False
    freeze_embed_positions: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    teacher_dtype: str | None = None
    teacher_sharding: str = "fsdp,tensor"
    gradient_checkpointing: str | None = dataclasses.field(default=None, metadata={"switch": "full"})
    use_scan: bool = True
    cache_encoder_states: bool = False
    encoder_cache_dir: str | None = None
    dataloader_num_workers: int | None = None
    seed: int = 0
    logging_steps: int = 25
    save_steps: int = 1000
    save_total_limit: int | None = 2
    resume_from_checkpoint: str | None = None
    output_dir: str
    overwrite_output_dir: bool = False
    export_dtype: str = "float16"
    dry_run: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r} is unknown: expected {', '.join(PRECISIONS)}")
        if self.export_dtype not in EXPORT_DTYPES:
            raise InputError(
                f"export_dtype {self.export_dtype!r} is unknown: expected {', '.join(EXPORT_DTYPES)}"
            )
        self._check_models()
        self._check_counts()
        self.check_evaluation()
        self._check_combinations()
        # The rooms' own settings check the rest of the values.
        _ = self.freezing, self.loss_weights, self.compute
        _ = self.mesh_shape, self.teacher_axes
        if self.teacher_dtype is not None:
            ComputeOptions(dtype=self.teacher_dtype)
        if self.max_steps is not None:
            self.optimizer(self.max_steps)

    def _check_models(self) -> None:
        if not (self.teacher_model_name_or_path or self.model_name_or_path):
            raise InputError(
                "neither teacher_model_name_or_path nor model_name_or_path is given: name a teacher to "
                "distil from, or a model to fine-tune"
            )
        makes_student = (
            self.student_encoder_layers,
            self.student_decoder_layers,
            self.student_decoder_layer_indices,
            self.max_source_positions,
        )
        if self.model_name_or_path and any(makes_student):
            raise InputError(
                f"model_name_or_path {self.model_name_or_path!r} is a student already: "
                "leave out student_*_layers and max_source_positions"
            )
        if self.student_decoder_layers and self.student_decoder_layer_indices:
            raise InputError("student_decoder_layers and student_decoder_layer_indices are both given")
        if self.teacher_model_name_or_path is None and (self.kl_weight or self.mse_weight):
            raise InputError(
                f"kl_weight {self.kl_weight} and mse_weight {self.mse_weight} need a teacher: "
                "give teacher_model_name_or_path"
            )

    def _check_counts(self) -> None:
        check_positive(
            self,
            "per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps", "save_steps",
            "max_steps", "save_total_limit", "student_encoder_layers", "student_decoder_layers",
            "dataloader_num_workers", "max_source_positions",
        )  # fmt: skip
        if self.num_train_epochs <= 0:
            raise InputError(f"num_train_epochs {self.num_train_epochs} is not positive")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is not between 0 and 1")

    def _check_combinations(self) -> None:
        if self.resume_from_checkpoint and self.overwrite_output_dir:
            raise InputError("resume_from_checkpoint and overwrite_output_dir contradict each other")
        if self.cache_encoder_states and self.freeze_encoder is False:
            raise InputError("cache_encoder_states needs a frozen encoder: set freeze_encoder")
        if not any((self.loss_weights.ce, self.loss_weights.kl, self.mse_weight)):
            raise InputError("ce_weight, kl_weight and mse_weight are all 0: nothing is learned")
        resume = self.resume_from_checkpoint
        if resume is not None and resume != "latest" and not resume.isdigit():
            raise InputError(f"resume_from_checkpoint {resume!r} is neither latest nor a step")

    @property
    def freezing(self) -> FreezeConfig:
        """Which parts keep their weights; an encoder of which nothing is said is taken to be frozen."""
        return FreezeConfig(
            freeze_encoder=self.freeze_encoder is not False,
            freeze_decoder=self.freeze_decoder,
            freeze_embed_positions=self.freeze_embed_positions,
        )

    @property
    def loss_weights(self) -> LossWeights:
        """The weights of the loss with their defaults filled in (RECIPE 5)."""
        kl = self.kl_weight
        if kl is None:
            kl = 1.0 if self.teacher_model_name_or_path else 0.0
        ce = self.ce_weight if self.ce_weight is not None else (0.8 if kl > 0 else 1.0)
        return LossWeights(
            ce=ce,
            kl=kl,
            mse=self.mse_weight,
            temperature=self.temperature,
            label_smoothing_factor=self.label_smoothing_factor,
        )

    @property
    def uses_teacher(self) -> bool:
        """Whether the teacher takes part in the loss, not only in the initialisation."""
        return self.loss_weights.kl > 0 or self.mse_weight > 0

    @property
    def compute(self) -> ComputeOptions:
        """How student and teacher compute."""
        return ComputeOptions(
            dtype="float32" if self.precision == "full" else "bfloat16",
            use_scan=self.use_scan,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    @property
    def teacher_options(self) -> ComputeOptions:
        """How the teacher and a shared encoder compute."""
        return dataclasses.replace(self.compute, dtype=self.teacher_dtype or self.compute.dtype)

    @property
    def matmul_precision(self) -> str | None:
        """What products of float32 matrices are computed in, as ``jax.default_matmul_precision`` takes it."""
        return "float32" if self.precision == "full" else None

    @property
    def teacher_axes(self) -> tuple[str, ...]:
        """The axes of ``teacher_sharding``."""
        axes = () if self.teacher_sharding == "none" else tuple(self.teacher_sharding.split(","))
        if unknown := [axis for axis in axes if axis not in ("fsdp", "tensor")]:
            raise InputError(
                f"teacher_sharding {self.teacher_sharding!r} names {unknown[0]!r}: expected "
                "fsdp,tensor, fsdp, tensor or none"
            )
        return axes

    def optimizer(self, max_steps: int) -> OptimizerConfig:
        """Return the optimizer's settings for a run of ``max_steps`` updates.

        Raises:
            InputError: if a value is out of range, or ``lr_scheduler_kwargs`` names something unknown.
        """
        parameters: dict[str, Any] = dict(self.lr_scheduler_kwargs or {})
        if unknown := sorted(set(parameters) - set(SCHEDULE_PARAMETERS)):
            raise InputError(
                f"lr_scheduler_kwargs names {unknown[0]!r}: expected {', '.join(SCHEDULE_PARAMETERS)}"
            )
        return OptimizerConfig(
            **parameters,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            max_steps=max_steps,
            lr_scheduler_type=self.lr_scheduler_type,
            adam_beta1=self.adam_beta1,
            adam_beta2=self.adam_beta2,
            adam_epsilon=self.adam_epsilon,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            bfloat16_moments=self.precision == "full_mixed",
        )

    @property
    def output_path(self) -> Path:
        """``output_dir`` as a path."""
        return user_path(self.output_dir)
