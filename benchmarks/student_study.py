"""Each option for better students against the plain recipe: equal updates, several seeds, paired tests.

    python -m benchmarks.student_study --model tiny.en --steps 48 --seeds 3
    python -m benchmarks.student_study --table_only

A teacher is distilled into two decoder layers on the bundled training prompts, and the student transcribes
the held-out ones. Models hear 8 s instead of 30, which the held-out prompts fit in, so that a run takes about
a minute on one core; the teacher is cut in the same way. All runs share the outputs of the frozen encoder.
A run becomes a line of the results, and one that has its line is not repeated. The table compares the errors
in each recording, summed over the seeds, with those of the plain recipe (or of plain fine-tuning).
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import REPOSITORY, checkpoint_folder
from benchmarks.machine import limit_threads

WORK = REPOSITORY / ".cache" / "student_study"
PROMPTS = REPOSITORY / "examples" / "asterisk_prompts"
POSITIONS = 400
"""Encoder positions of 20 ms that the models hear."""

BATCH_SIZE = 16
CHUNK_SIZE = 96
"""Label tokens whose logits are computed at one time; two of these hold the about 170 of a batch."""

MAX_NEW_TOKENS = 64

PLAIN, FINE_TUNING = "plain", "fine-tuning"
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "teacher annealing (kl 1 to 0, ce 0.2 to 1)": {
        "kl_weight_schedule": "linear:0", "ce_weight": 0.2, "ce_weight_schedule": "linear:1",
    },
    "temperature 4, linear:1": {"temperature": 4.0, "temperature_schedule": "linear:1"},
    "beta 0.5": {"beta": 0.5},
    "beta 1": {"beta": 1.0},
    "lmbda 0.25": {"lmbda": 0.25},
    "layer_init average": {"student_layer_init": "average"},
    "layer_init collapse": {"student_layer_init": "collapse"},
    "teacher_dtype int8": {"teacher_dtype": "int8"},
    "lr cosine": {"lr_scheduler_type": "cosine"},
    "lr warmup_stable_decay": {"lr_scheduler_type": "warmup_stable_decay"},
    FINE_TUNING: {"kl_weight": 0.0},
    "fine-tuning, label_smoothing_factor 0.1": {"kl_weight": 0.0, "label_smoothing_factor": 0.1},
}  # fmt: skip
"""Settings of each option that differ from the plain recipe."""


def baseline_of(option: str) -> str:
    """Return the option that another one is compared with."""
    return FINE_TUNING if OPTIONS[option].get("kl_weight") == 0.0 else PLAIN


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What all runs share.

    Attributes:
        model: Name of the teacher.
        steps: Number of updates of each run.
        seeds: Number of runs of each option.
        learning_rate: Peak learning rate.
    """

    model: str
    steps: int
    seeds: int
    learning_rate: float

    @property
    def teacher(self) -> Path:
        """The folder of the teacher that hears less, which is made if it is not there."""
        from flax_distil.checkpoints.config import InitStudentConfig
        from flax_distil.checkpoints.job import run_init_student
        from flax_distil.core.nested import build

        folder = WORK / f"teacher-{self.model}"
        if not (folder / "config.json").is_file():
            source = checkpoint_folder(self.model)
            layers = json.loads((source / "config.json").read_text())["decoder_layers"]
            run_init_student(
                build(
                    InitStudentConfig,
                    teacher_model_name_or_path=str(source), decoder_layers=layers,
                    max_source_positions=POSITIONS, output_dir=str(folder), overwrite_output_dir=True,
                )
            )  # fmt: skip
        return folder

    def encoder(self, option: str) -> str:
        """Return a name of the encoder whose outputs an option trains on."""
        return f"encoder-{self.model}-{OPTIONS[option].get('teacher_dtype', 'float32')}"

    def config(self, option: str, seed: int) -> Any:
        """Return the configuration of a run."""
        from flax_distil.core.nested import build
        from flax_distil.distillation.config import DistillConfig

        values: dict[str, Any] = {
            "teacher_model_name_or_path": str(self.teacher),
            "student_decoder_layers": 2,
            "train_dataset_name": str(PROMPTS), "train_split_name": "train", "label_column_name": "text",
            "eval_dataset_name": str(PROMPTS), "eval_split_name": "validation",
            "language": None if self.model.endswith(".en") else "en",
            "per_device_train_batch_size": BATCH_SIZE,
            "timestamp_probability": 0.0,
            "max_steps": self.steps, "warmup_steps": self.steps // 10, "learning_rate": self.learning_rate,
            "precision": "full", "freeze_encoder": True, "export_dtype": "float32",
            "cache_encoder_states": True, "encoder_cache_dir": str(WORK / self.encoder(option)),
            "generation_max_length": MAX_NEW_TOKENS,
            "seed": seed, "output_dir": str(WORK / "unused"),
        }  # fmt: skip
        given = dict(OPTIONS[option])
        if given.get("lr_scheduler_type") == "warmup_stable_decay":
            given["lr_scheduler_kwargs"] = {"num_decay_steps": self.steps // 5}
        return build(DistillConfig, values | given)


class Option:
    """The models and compiled functions of an option, for all its seeds."""

    def __init__(self, study: Study, name: str, shared: dict[str, Any]):
        """Read the models; nothing is compiled.

        Args:
            study: What all runs share.
            name: Name of the option.
            shared: Weights that several options have, by what they are; those of this one are added.
        """
        from flax_distil.checkpoints.tokenizer import read_tokenizer
        from flax_distil.data.training.training_sources import TableSource
        from flax_distil.distillation.setup.data import load_data, open_cache
        from flax_distil.distillation.setup.models import check_models, load_models
        from flax_distil.distillation.setup.step_fns import TrainStepFns
        from flax_distil.parallel.make_partitioner import join_devices

        self.study, self.name, self.config = study, name, study.config(name, 0)
        self.partitioner = join_devices(self.config.devices)
        student, _ = check_models(self.config)
        self.tokenizer, self.settings = read_tokenizer(student.files)
        self.data = load_data(self.config, self.tokenizer, student.config)
        models = load_models(self.config, self.partitioner, {})
        begun = f"student by {self.config.student.student_layer_init}"
        self.trainable = shared.setdefault(begun, self.partitioner.device_get(models.trainable))
        encoder = study.encoder(name)
        frozen = shared.setdefault(encoder, models.frozen)
        teacher = models.teacher_params and shared.setdefault(f"{encoder}, decoder", models.teacher_params)
        kept = shared.setdefault("encoder of exports", models.kept)
        self.models = dataclasses.replace(
            models, trainable={}, frozen=frozen, kept=kept, teacher_params=teacher
        )
        shardings = models.shardings
        shardings.step = dataclasses.replace(shardings.step, chunk_size=CHUNK_SIZE)
        self.fns = TrainStepFns(
            self.config.optimizer_for(study.steps), self.models.shardings, self.partitioner
        )
        (source,) = self.data.train.sources
        assert isinstance(source, TableSource)
        shape = student.config.max_source_positions, student.config.d_model
        self.cache = open_cache(self.config, source.data, shape, encoder)

    def train(self, seed: int) -> tuple[Any, dict[str, float]]:
        """Train one student, and return its parameters and the metrics of its last update."""
        from flax_distil.distillation.setup.data import make_pipeline, prepare_batch

        specs = self.models.shardings.trainable.specs
        state = self.fns.init(self.partitioner.device_put(self.trainable, specs))
        config = self.study.config(self.name, seed)
        pipeline = make_pipeline(config, self.data, self.models.student.config, self.partitioner, self.cache)
        metrics: Mapping[str, Any] = {}
        try:
            for _ in range(self.study.steps):
                arrays = prepare_batch(
                    next(pipeline),
                    partitioner=self.partitioner,
                    micro_batches=1,
                    cache=self.cache,
                    encode=lambda batch: self.fns.encode(self.models.frozen["encoder"], batch),
                )
                state, metrics = self.fns.train(state, self.models.frozen, self.models.teacher_params, arrays)
        finally:
            pipeline.close()
            self.cache.flush()
        return state.params, {name: float(value) for name, value in metrics.items()}

    def evaluate(self, params: Any, encoded: dict[int, Any]) -> list[dict[str, Any]]:
        """Transcribe the held-out prompts, and return the errors in each.

        Args:
            params: Trained leaves.
            encoded: Encoder outputs of the batches so far, which are added to.
        """
        from flax_distil.core.tree import merge
        from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
        from flax_distil.data.training.pipeline_config import PipelineConfig
        from flax_distil.distillation.evaluation.predictions import batch_predictions
        from flax_distil.transcription.generator import WhisperGenerator
        from flax_distil.transcription.short_form import ShortFormTranscriber

        (chosen,) = self.data.evaluation
        student = self.models.student.config
        transcriber = ShortFormTranscriber(
            WhisperGenerator(
                student, merge(params, self.models.kept), self.tokenizer, self.settings,
                options=self.config.evaluation.evaluation_options(chosen.language, chosen.task),
                compute=self.config.student_options, partitioner=self.partitioner,
            )
        )  # fmt: skip
        batches = EvaluationPipeline(
            chosen.source, PipelineConfig(batch_size=BATCH_SIZE, window_seconds=student.window_seconds)
        )
        found = []
        for number, batch in enumerate(batches):
            if number not in encoded:
                encoded[number] = transcriber.generator.encode_samples(batch.samples_BW)
            transcripts = transcriber.collect(transcriber.dispatch_encoded(encoded[number], rows=BATCH_SIZE))
            texts = [transcript.text for transcript in transcripts]
            found += batch_predictions(batch, texts, chosen.normalize)[1]
        return [{"id": one.id, "errors": one.errors, "words": one.words} for one in found]


def run_all(study: Study, results: Path, names: list[str]) -> None:
    """Do the runs that have no line yet: all options with one seed, then with the next."""
    done = {(line["option"], line["seed"]) for line in read_lines(study, results)}
    options: dict[str, Option] = {}
    encoded: dict[int, Any] = {}
    shared: dict[str, Any] = {}
    for seed in range(study.seeds):
        for name in names:
            if (name, seed) in done:
                continue
            if name not in options:
                options[name] = Option(study, name, shared)
            start = time.perf_counter()
            params, metrics = options[name].train(seed)
            trained = time.perf_counter()
            errors = options[name].evaluate(params, encoded)
            line = dataclasses.asdict(study) | {
                "option": name, "seed": seed, "metrics": metrics, "recordings": errors,
                "train_seconds": round(trained - start, 1),
                "evaluation_seconds": round(time.perf_counter() - trained, 1),
            }  # fmt: skip
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"seed {seed} {name}: WER {wer(errors):.2f} %, {line['train_seconds']} s", flush=True)


def read_lines(study: Study, results: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of runs of this study."""
    shared = {name: value for name, value in dataclasses.asdict(study).items() if name != "seeds"}
    for text in results.read_text().splitlines() if results.is_file() else ():
        line = json.loads(text)
        if shared.items() <= line.items() and line["seed"] < study.seeds:
            yield line


def wer(recordings: list[dict[str, Any]]) -> float:
    """Return the word error rate of recordings in percent."""
    return 100 * sum(one["errors"] for one in recordings) / sum(one["words"] for one in recordings)


def table(lines: list[dict[str, Any]]) -> str:
    """Return a Markdown table: WER, difference from the baseline with its interval, paired p-values.

    Seeds that one of the two lacks are left out of a comparison.
    """
    import numpy as np

    from flax_distil.evaluation.report.tables import p_value
    from flax_distil.metrics.bootstrap import (
        bootstrap_p_value,
        matched_pairs_p_value,
        percentile_interval,
        resample_sums,
    )

    runs = {(line["option"], line["seed"]): line["recordings"] for line in lines}
    rows = [
        "| option | WER of each seed (%) | mean (%) | against | difference (points), 95 % | p, matched pairs "
        "| p, bootstrap |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in OPTIONS:
        seeds = sorted(seed for option, seed in runs if option == name)
        if not seeds:
            continue
        rates = [wer(runs[name, seed]) for seed in seeds]
        cells = [name, ", ".join(f"{rate:.1f}" for rate in rates), f"{np.mean(rates):.2f}"]
        base = baseline_of(name)
        shared = [seed for seed in seeds if (base, seed) in runs]
        if name == base or not shared:
            rows.append(f"| {' | '.join(cells)} | | | | |")
            continue
        errors = {
            option: np.sum([[one["errors"] for one in runs[option, seed]] for seed in shared], axis=0)
            for option in (name, base)
        }
        words = len(shared) * np.array([one["words"] for one in runs[base, shared[0]]])
        differences = (errors[name] - errors[base]).astype(float)
        sums = resample_sums(np.stack([differences, words], axis=1))
        points = 100 * sums[:, 0] / sums[:, 1]
        low, high = percentile_interval(points)
        difference = 100 * differences.sum() / words.sum()
        p_values = matched_pairs_p_value(differences), bootstrap_p_value(points)
        cells += [base, f"{difference:+.2f} ({low:+.2f} to {high:+.2f})", *map(p_value, p_values)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Do the study, or what is left of it, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--results", type=Path, default=WORK / "results.jsonl")
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=list(OPTIONS), metavar="NAME")
    parser.add_argument("--table_only", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    limit_threads(args.threads)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    study = Study(model=args.model, steps=args.steps, seeds=args.seeds, learning_rate=args.learning_rate)
    if not args.table_only:
        run_all(study, args.results, args.options)
    print(table(list(read_lines(study, args.results))))


if __name__ == "__main__":
    main()
