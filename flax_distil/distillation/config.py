"""Every setting of a distillation."""

import dataclasses

from flax_distil.checkpoints.hub.config import HubTrainingConfig, ModelCardConfig
from flax_distil.checkpoints.model_config import ModelConfig, StudentConfig, TeacherConfig, WeightsConfig
from flax_distil.core.checks import check_positive, parse_steps
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.data.training.config import TrainingDataConfig
from flax_distil.distillation.evaluation.config import EvaluationConfig
from flax_distil.distillation.monitoring.config import ReportingConfig
from flax_distil.distillation.training_config import FreezeConfig, LossConfig, OnPolicyConfig, OptimizerConfig
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import DropoutConfig
from flax_distil.parallel.config import ParallelConfig
from flax_distil.storage.output_dir import OutputConfig

TEACHER_DTYPES = ("float32", "bfloat16", "float16", "int8")
"""Values of ``teacher_dtype``."""

PRECISIONS = ("full", "half_mixed", "full_mixed")
"""Values of ``precision``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillTeacherConfig(TeacherConfig):
    """Teacher.

    Attributes:
        teacher_dtype: Element type of the weights and computations of the teacher and of a shared encoder. By
            default that of the student: bfloat16, or float32 with precision full. With int8 the products of
            their layers are computed in int8, and all else in the type of the student.
        teacher_sharding: Axes of the mesh that the teacher and a shared encoder are divided over:
            fsdp,tensor (as the student), fsdp, tensor or none.
    """

    teacher_dtype: str | None = None
    teacher_sharding: str = "fsdp,tensor"

    def __post_init__(self) -> None:
        _ = self.axes
        if self.teacher_dtype not in (None, *TEACHER_DTYPES):
            known = ", ".join(TEACHER_DTYPES)
            raise InputError(f"teacher_dtype {self.teacher_dtype!r} is unknown: expected one of {known}")

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of ``teacher_sharding``."""
        axes = () if self.teacher_sharding == "none" else tuple(self.teacher_sharding.split(","))
        if unknown := [axis for axis in axes if axis not in ("fsdp", "tensor")]:
            raise InputError(
                f"teacher_sharding {self.teacher_sharding!r} names {unknown[0]!r}: expected "
                "fsdp,tensor, fsdp, tensor or none"
            )
        return axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointingConfig:
    """Checkpoints and logs.

    Attributes:
        logging_steps: Number of updates between two lines of the logs.
        save_steps: Number of updates between two checkpoints; one is always written at the end. 0 counts
            none.
        save_minutes: Number of minutes between two checkpoints, in addition to save_steps. Several processes
            look at the clock at the steps of log lines.
        save_total_limit: Number of the latest checkpoints to keep; the best one is kept in addition.
        load_best_model_at_end: Export the model of the best evaluation rather than the last. A checkpoint is
            then saved at each evaluation.
        metric_for_best_model: What the best evaluation is the best in: wer, loss, ce_loss, kl_loss or
            accuracy, as the mean over the evaluation data sets, or with the name of one of them and _ before
            it.
        resume_from_checkpoint: Checkpoint from which the run in output_dir continues: latest, the number of a
            step, or auto, which starts a run where there is no checkpoint yet and continues it otherwise.
        profile_steps: First and last step to record in output_dir/profile, such as 10:15; XProf and Perfetto
            open the trace.
        stall_timeout_minutes: Warn after so many minutes without progress, with where the run is waiting; it
            goes on.
        allow_changed_settings: Resume although settings that change the run are not those of its run.json,
            such as the learning rate or the weights of the loss.
    """

    logging_steps: int = 25
    save_steps: int | None = 1000
    save_minutes: float | None = None
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = False
    metric_for_best_model: str = "wer"
    resume_from_checkpoint: str | None = None
    profile_steps: str | None = None
    stall_timeout_minutes: float = 10.0
    allow_changed_settings: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "logging_steps", "save_total_limit")
        if self.profile_steps is not None:
            parse_steps("profile_steps", self.profile_steps)
        if (self.save_steps or 0) < 0:
            raise InputError(f"save_steps {self.save_steps} is below 0")
        if self.save_minutes is not None and self.save_minutes <= 0:
            raise InputError(f"save_minutes {self.save_minutes:g} is not above 0")
        if not self.stall_timeout_minutes > 0:
            raise InputError(f"stall_timeout_minutes {self.stall_timeout_minutes} is not positive")
        resume = self.resume_from_checkpoint
        if resume is not None and resume not in ("latest", "auto") and not resume.isdigit():
            raise InputError(f"resume_from_checkpoint {resume!r} is neither latest, auto nor a step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Distil a Whisper teacher into a student, or fine-tune a model on labels alone.

    Attributes:
        per_device_train_batch_size: Number of training samples per device and micro-batch.
        gradient_accumulation_steps: Number of micro-batches per optimizer update.
        global_batch_size: Number of training samples per optimizer update, on all devices together. The
            number of micro-batches follows from it, and a device gets at most per_device_train_batch_size
            samples at a time. By default what the two flags before make of the devices.
        precision: full (float32 throughout, for the teacher and for products of matrices too, without TF32 or
            bfloat16 passes), half_mixed (bfloat16 computations, float32 gradients and optimizer) or
            full_mixed (bfloat16 gradients and moments too). The student's parameters and losses are float32
            in all three.
        cache_encoder_states: Keep the outputs of the frozen encoder on disk (in bfloat16), so that no encoder
            runs from the second epoch on.
        encoder_cache_dir: Folder of these outputs; by default encoder_cache in output_dir. What
            pseudo-label kept in the same folder is not encoded again.
        dry_run: Do not train, but print a plan, as the command plan does, whose flags are then accepted too.

    Raises:
        InputError: If a value is out of range, or two contradict each other.
    """

    teacher: DistillTeacherConfig = nested(
        DistillTeacherConfig(teacher_model_name_or_path=None),
        help={
            "teacher_model_name_or_path": "Teacher, a folder or Hub id; leave it out to fine-tune a model on "
            "the labels alone."
        },
    )
    model: ModelConfig = nested(
        ModelConfig(model_name_or_path=None),
        help={
            "model_name_or_path": "Student to train, a folder or Hub id; by default a student is made from "
            "layers of the teacher."
        },
    )
    student: StudentConfig = nested(
        StudentConfig(),
        hide={"student_encoder_layer_indices"},
    )
    data: TrainingDataConfig
    loss: LossConfig = nested(LossConfig())
    on_policy: OnPolicyConfig = nested(OnPolicyConfig())
    optimizer: OptimizerConfig = nested(OptimizerConfig())
    freeze: FreezeConfig = nested(FreezeConfig())
    dropouts: DropoutConfig = nested(DropoutConfig())
    per_device_train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    global_batch_size: int | None = None
    precision: str = "half_mixed"
    compute: ComputeOptions = nested(ComputeOptions(), show={"use_scan", "gradient_checkpointing"})
    devices: ParallelConfig = nested(ParallelConfig())
    cache_encoder_states: bool = False
    encoder_cache_dir: str | None = None
    evaluation: EvaluationConfig = nested(EvaluationConfig())
    checkpoints: CheckpointingConfig = nested(CheckpointingConfig())
    reporting: ReportingConfig = nested(ReportingConfig())
    output: OutputConfig = nested(
        help={
            "output_dir": "Folder of the exported student, logs and checkpoints, here or in a gs:// bucket.",
            "overwrite_output_dir": "Replace the checkpoints, logs and student of an earlier run in "
            "output_dir; other files stay, also the cached encoder outputs.",
        }
    )
    weights: WeightsConfig = nested(WeightsConfig(), section="Main flags")
    hub: HubTrainingConfig = nested(HubTrainingConfig())
    card: ModelCardConfig = nested(ModelCardConfig(), hide={"eval_results"})
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r} is unknown: expected {', '.join(PRECISIONS)}")
        check_positive(
            self, "per_device_train_batch_size", "gradient_accumulation_steps", "global_batch_size"
        )
        self._check_models()
        self._check_combinations()

    def _check_models(self) -> None:
        teacher, model = self.teacher.teacher_model_name_or_path, self.model.model_name_or_path
        if not (teacher or model):
            raise InputError(
                "neither teacher_model_name_or_path nor model_name_or_path is given: name a teacher to "
                "distil from, or a model to fine-tune"
            )
        check_positive(
            self.student, "student_encoder_layers", "student_decoder_layers", "max_source_positions"
        )
        if self.student.student_decoder_layers and self.student.student_decoder_layer_indices:
            raise InputError("student_decoder_layers and student_decoder_layer_indices are both given")
        if model and self.student != StudentConfig():
            raise InputError(
                f"model_name_or_path {model!r} is a student already: "
                "leave out student_*_layers, student_layer_init and max_source_positions"
            )
        if teacher is None and (self.loss.peak("kl_weight") or self.loss.peak("mse_weight")):
            raise InputError(
                f"kl_weight {self.loss.kl_weight} and mse_weight {self.loss.mse_weight} need a teacher: "
                "give teacher_model_name_or_path"
            )

    def _check_combinations(self) -> None:
        if self.checkpoints.resume_from_checkpoint and self.output.overwrite_output_dir:
            raise InputError("resume_from_checkpoint and overwrite_output_dir contradict each other")
        if self.checkpoints.load_best_model_at_end and self.evaluation.eval_dataset_name is None:
            raise InputError("load_best_model_at_end needs evaluations: give eval_dataset_name")
        if (
            self.teacher.teacher_dtype == "int8"
            and self.freeze.freeze_encoder is False
            and not self.uses_teacher
        ):
            raise InputError(
                "teacher_dtype int8 is for weights that are not trained, and there are none: the loss has no "
                "teacher, and freeze_encoder is false; leave teacher_dtype out"
            )
        if self.cache_encoder_states and self.freeze.freeze_encoder is False:
            raise InputError("cache_encoder_states needs a frozen encoder: set freeze_encoder")
        loss = self.training_loss
        factors = self.data.train_dataset_kl_weights
        if factors is not None and not loss.peak("kl_weight"):
            raise InputError(
                f"train_dataset_kl_weights {factors!r} has no KL term to scale: give a teacher and a "
                "kl_weight above 0, or leave it out"
            )
        if self.data.non_speech.replaces_samples and not loss.peak("ce_weight"):
            raise InputError(
                "non_speech_probability needs the cross-entropy, which alone teaches silence, and ce_weight "
                "is 0: set ce_weight above 0, or leave non_speech_probability out"
            )
        if not any(map(loss.peak, ("ce_weight", "kl_weight", "mse_weight"))):
            raise InputError("ce_weight, kl_weight and mse_weight are all 0: nothing is learned")
        if self.on_policy.lmbda and not loss.peak("kl_weight"):
            raise InputError(
                f"lmbda {self.on_policy.lmbda:g} has no teacher to score what the student writes: give a "
                "teacher and a kl_weight above 0, or leave it out"
            )

    @property
    def training_loss(self) -> LossConfig:
        """The settings of the loss with every weight decided."""
        return self.loss.complete(has_teacher=bool(self.teacher.teacher_model_name_or_path))

    @property
    def uses_teacher(self) -> bool:
        """Whether the teacher takes part in the loss, not only in the initialization of the student."""
        return self.training_loss.uses_teacher

    @property
    def student_options(self) -> ComputeOptions:
        """How the student computes."""
        return dataclasses.replace(self.compute, dtype="float32" if self.precision == "full" else "bfloat16")

    @property
    def teacher_options(self) -> ComputeOptions:
        """How the teacher and a shared encoder compute."""
        own, asked = self.student_options, self.teacher.teacher_dtype
        if asked == "int8":
            return dataclasses.replace(own, int8=True)
        return dataclasses.replace(own, dtype=asked or own.dtype)

    @property
    def matmul_precision(self) -> str | None:
        """What products of float32 matrices are computed in, as ``jax.default_matmul_precision`` takes it."""
        return "float32" if self.precision == "full" else None

    def optimizer_for(self, max_steps: int) -> OptimizerConfig:
        """Return the optimizer's settings for a run of ``max_steps`` updates.

        Raises:
            InputError: If the schedule needs more updates.
        """
        moments = self.precision == "full_mixed"
        return dataclasses.replace(self.optimizer, max_steps=max_steps, bfloat16_moments=moments)
