"""Runs small jobs of every command and describes what they leave: ``python -m tests.golden.generate [FILE]``.

The jobs are started as a user starts them, by ``main`` of the command line, on a teacher that is made
here from the names and shapes of a Hugging Face file. So nothing depends on how the package is built
inside. Without ``FILE`` the golden file is rewritten.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from safetensors.numpy import load_file, save_file

from flax_distil.cli.main import main
from tests import quick_compilation
from tests.real_checkpoints import CHECKPOINTS, ensure_checkpoints

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false "
    + quick_compilation.FLAGS,
    "OMP_NUM_THREADS": "1",
    "FLAX_DISTIL_COMPILATION_CACHE": "off",
    "HF_HUB_OFFLINE": "1",
}
"""Set before JAX is imported: two devices, so that gradients are summed over them; quick compilation."""

GOLDEN = Path(__file__).with_name("results.json")
PROMPTS = Path(__file__).parents[2] / "examples" / "asterisk_prompts"
TIMED = ("second", "data_wait", "rtfx", "latency", "speed", "sessions", "version", "created")
"""Parts of the names of values that no two runs share."""

SMALLER = {384: 32, 1536: 64}
"""Widths of tiny.en, and those of the toy."""

Flags = dict[str, Any]


def write_toy(folder: Path, *, encoder_layers: int = 2, decoder_layers: int = 2, seed: int = 0) -> Path:
    """Write a Whisper of random weights with the tokenizer of tiny.en; what it hears decides what it says."""
    ensure_checkpoints(("tiny.en",))
    source, random = CHECKPOINTS / "whisper-tiny.en", np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in (".json", ".txt"):
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config |= {name: SMALLER[size] for name, size in config.items() if size in list(SMALLER)}
    config |= {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
    config |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    layers = {"encoder": encoder_layers, "decoder": decoder_layers}
    tensors = {}
    for name, tensor in sorted(load_file(source / "model.safetensors").items()):
        _, side, kind, number, *_ = name.split(".")
        if kind == "layers" and int(number) >= layers[side]:
            continue
        shape = [SMALLER.get(size, size) for size in tensor.shape]
        tensors[name] = random.normal(scale=0.5, size=shape).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_prompts(folder: Path, *, rows: int = 9) -> Path:
    """List short recordings with pseudo-labels and speakers, and among them a file that is no audio."""
    lines = (PROMPTS / "validation" / "metadata.jsonl").read_text().splitlines()[:rows]
    listed = [
        {
            "audio": Path(shutil.copy(PROMPTS / "validation" / row["file_name"], folder)).name,
            "text": row["text"],
            "whisper_transcript": f"<|0.00|> {row['text']}<|1.20|>" if number % 2 else row["text"],
            "speaker": number // 3,
        }
        for number, row in enumerate(map(json.loads, lines))
    ]
    (folder / "broken.wav").write_bytes(b"this is not audio")
    listed.insert(2, {**listed[0], "audio": "broken.wav"})
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    return path


def run(command: str, flags: Flags, *files: str) -> str:
    """Run a command and return what it printed."""
    printed = io.StringIO()
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    with contextlib.redirect_stdout(printed):
        assert main([command, *files, *arguments]) == 0
    return printed.getvalue()


def untimed(value: Any) -> Any:
    """Leave out what no two runs share."""
    if isinstance(value, dict):
        return {name: untimed(part) for name, part in value.items() if not any(t in name for t in TIMED)}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def json_lines(path: Path) -> list[Any]:
    return [untimed(json.loads(line)) for line in path.read_text().splitlines()]


def files_of(folder: Path) -> list[str]:
    """Return the names of all files but those whose names other libraries choose."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if "/checkpoint_" not in path and "tfevents" not in path)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def describe_tensor(tensor: np.ndarray) -> dict[str, Any]:
    wide = tensor.astype(np.float64)
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "sum": float(wide.sum()),
        "magnitude": float(np.abs(wide).sum()),
        "sha256": digest(tensor.tobytes()),
    }


def checkpoint_leaves(folder: Path) -> dict[str, list[str]]:
    """Return the names of all arrays of each training checkpoint: a run is resumed from them."""
    return {
        str(path.relative_to(folder)): sorted(json.loads(path.read_text())["tree_metadata"])
        for path in sorted(folder.glob("checkpoints/**/_METADATA"))
    }


def describe_student(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / "model.safetensors")
    return {
        "files": files_of(folder),
        "checkpoints": checkpoint_leaves(folder),
        "metrics": json_lines(folder / "metrics.jsonl"),
        "config.json": json.loads((folder / "config.json").read_text()),
        "generation_config.json": json.loads((folder / "generation_config.json").read_text()),
        "tensors": {name: describe_tensor(tensor) for name, tensor in sorted(tensors.items())},
    }


def distil(scratch: Path, name: str, flags: Flags) -> dict[str, Any]:
    folder = scratch / name
    common = {
        "teacher": scratch / "toy.en", "train_dataset_name": scratch / "prompts.jsonl",
        "max_steps": 3, "warmup_steps": 1, "learning_rate": 1e-3, "logging_steps": 1, "save_steps": 2,
        "per_device_train_batch_size": 1, "student_decoder_layers": 1, "max_label_length": 32,
        "mse_weight": 0.02, "condition_on_prev_probability": 0, "dataloader_num_workers": 1,
        "output_dir": folder,
    }  # fmt: skip
    run("distil", {**common, **flags})
    return describe_student(folder)


def distil_on_a_mesh(scratch: Path) -> dict[str, Any]:
    """Packed clips, two micro-batches, dropout, a frozen encoder, and evaluations."""
    return distil(
        scratch,
        "jit",
        {
            "freeze_encoder": True, "gradient_accumulation_steps": 2, "precision": "full", "dropout": 0.1,
            "concatenate_audio": True, "speaker_column_name": "speaker", "condition_on_prev_probability": 0.5,
            "return_timestamps": True, "timestamp_probability": 0.5, "export_dtype": "float32",
            "eval_dataset_name": scratch / "prompts.jsonl", "max_eval_samples": 3, "eval_steps": 2,
            "per_device_eval_batch_size": 2, "generation_max_length": 8,
        },
    )  # fmt: skip


def distil_with_pmap(scratch: Path) -> dict[str, Any]:
    """A stream whose features are augmented, two micro-batches; the encoder is trained too."""
    return distil(
        scratch,
        "pmap",
        {
            "parallelism": "pmap", "freeze_encoder": False, "gradient_accumulation_steps": 2,
            "streaming": True, "shuffle_buffer_size": 4, "student_encoder_layers": 1,
            "mask_time_prob": 0.1, "mask_feature_prob": 0.1, "white_noise_prob": 0.5,
            "precision": "full", "weight_decay": 0.01,
        },
    )  # fmt: skip


def distil_from_cached_states(scratch: Path) -> dict[str, Any]:
    """Training from encoder states that were computed before."""
    return distil(
        scratch,
        "cached",
        {"cache_encoder_states": True, "precision": "full", "max_steps": 2, "lr_scheduler_type": "cosine"},
    )


def fine_tune(scratch: Path) -> dict[str, Any]:
    """Training on references alone, without a teacher, in bfloat16."""
    folder = scratch / "tuned"
    flags = {
        "model_name_or_path": scratch / "toy.en", "train_dataset_name": scratch / "prompts.jsonl",
        "label_column_name": "", "freeze_encoder": True, "max_steps": 2, "warmup_steps": 1,
        "per_device_train_batch_size": 2, "logging_steps": 1, "max_label_length": 32,
        "condition_on_prev_probability": 0, "output_dir": folder,
    }  # fmt: skip
    run("distil", flags)
    return describe_student(folder)


def describe_table(path: Path) -> dict[str, Any]:
    table = pyarrow.parquet.read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "audio"}
    audio = table["audio"].to_pylist()
    return {
        "schema": {field.name: str(field.type) for field in table.schema},
        "columns": columns,
        "audio": [{"path": row["path"], "sha256": digest(row["bytes"])} for row in audio],
        "sha256": digest(path.read_bytes()),
    }


def pseudo_label(scratch: Path) -> dict[str, Any]:
    """Labels of three shards with timestamps."""
    folder = scratch / "labels"
    flags = {
        "model": scratch / "toy.en", "dataset_name": scratch / "prompts.jsonl", "samples_per_shard": 4,
        "per_device_eval_batch_size": 2, "return_timestamps": True, "generation_max_length": 12,
        "text_column_name": "text", "output_dir": folder, "num_beams": 2,
    }  # fmt: skip
    run("pseudo-label", flags)
    return {
        "files": files_of(folder),
        "tables": {
            str(path.relative_to(folder)): describe_table(path) for path in sorted(folder.rglob("*.parquet"))
        },
        "README.md": (folder / "README.md").read_text(),
        "documents": {
            str(path.relative_to(folder)): untimed(json.loads(path.read_text()))
            for path in sorted(folder.rglob("*.json"))
        },
        "progress": {
            str(path.relative_to(folder)): json_lines(path) for path in sorted(folder.rglob("*.jsonl"))
        },
    }


def read_cell(cell: str) -> str | float:
    """Return a cell as a number where it is one: numbers are compared with a tolerance."""
    try:
        return float(cell)
    except ValueError:
        return cell


def evaluate(scratch: Path) -> dict[str, Any]:
    """Two models on one data set, clean and noisy."""
    folder = scratch / "report"
    flags = {
        "model": f"{scratch / 'toy.en'}+{scratch / 'other.en'}", "dataset_name": scratch / "prompts.jsonl",
        "max_samples": 4, "per_device_eval_batch_size": 2, "generation_max_length": 6, "noise_types": "white",
        "snr_db": 0, "output_dir": folder,
    }  # fmt: skip
    run("eval", flags)
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [[read_cell(cell) for cell in row] for row in csv.reader(file)]
    return {
        "files": files_of(folder),
        "results.json": untimed(json.loads((folder / "results.json").read_text())),
        "predictions.csv": rows,
    }


def transcribe(scratch: Path) -> dict[str, Any]:
    """A recorded prompt in every format, in two modes."""
    file = str(scratch / "conf-full.ogg")
    written = {}
    for mode, more in {
        "sequential": {"word_timestamps": True},
        "chunked": {"chunk_length_s": 15},
    }.items():
        folder = scratch / mode
        flags = {
            "model": CHECKPOINTS / "whisper-tiny.en", "mode": mode, "output_format": "all",
            "generation_max_length": 40, "output_dir": folder, **more,
        }  # fmt: skip
        printed = run("transcribe", flags, file)
        written[mode] = {"printed": printed} | {
            path.name: untimed(json.loads(path.read_text())) if path.suffix == ".json" else path.read_text()
            for path in sorted(folder.iterdir())
        }
        # Where the folder lies decides what the command that wrote it is known by.
        record = written[mode][".transcripts.jsonl"]
        written[mode][".transcripts.jsonl"] = re.sub(r'\{"(begun|ended)": .*\n', "", record)
    return written


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    job.__name__: job
    for job in (
        distil_on_a_mesh,
        distil_with_pmap,
        distil_from_cached_states,
        fine_tune,
        pseudo_label,
        evaluate,
        transcribe,
    )
}


def without_folder(value: Any, folder: str) -> Any:
    """Write ``<scratch>`` instead of the folder of the jobs."""
    return json.loads(json.dumps(value, ensure_ascii=False).replace(folder, "<scratch>"))


def generate(names: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_toy(scratch / "toy.en")
        write_toy(scratch / "other.en", encoder_layers=1, seed=1)
        write_prompts(scratch)
        results = {}
        for name in names:
            start = time.monotonic()
            results[name] = JOBS[name](scratch)
            print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        return without_folder(results, folder)


if __name__ == "__main__":
    assert "jax" not in sys.modules
    os.environ.update(ENVIRONMENT)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    destination = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    document = generate(sys.argv[2:] or list(JOBS))
    destination.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
