"""A run that goes on with other numbers of processes and devices is the run that was not interrupted."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import quick_compilation
from tests.toys import write_teacher

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("logged_distillation.py")
ROWS, FILES, DAMAGED = 60, 5, 17
STEPS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a part of a run is computed."""

    processes: int = 1
    devices: int = 1  # of each process
    flags: tuple[str, ...] = ()


def on_processes(*counts: int, flags: Sequence[str] = ()) -> list[Layout]:
    return [Layout(processes=count, flags=tuple(flags)) for count in counts]


PMAP = ("--parallelism=pmap",)
LAYOUTS = {
    "processes": on_processes(4, 2, 1, 3),
    "processes, pmap": on_processes(4, 2, 1, 3, flags=PMAP),
    "devices": [
        Layout(devices=8, flags=PMAP), Layout(devices=4, flags=("--mesh=fsdp=2,tensor=2,data=1",)),
        Layout(devices=1), Layout(devices=4),
    ],
    "devices, pmap last": [
        Layout(devices=8, flags=("--mesh=data=2,fsdp=4",)), Layout(devices=4, flags=PMAP),
        Layout(devices=1), Layout(devices=8, flags=PMAP),
    ],
}  # fmt: skip

PACKED = ("--concatenate_audio=true", "--speaker_column_name=speaker")
DATA = {
    "table": ((), 1),
    "packed tables, mixed": (("--train_dataset_samples=1+2", *PACKED), 2),
    "stream": (("--streaming=true",), 1),
    "packed streams, mixed": (("--streaming=true", "--train_dataset_samples=1+2", *PACKED), 2),
}
"""Flags, and the number of data sets."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_en_dir, prompts_dir) -> tuple[Path, list[Path]]:
    """A teacher, and two data sets in five files each, of which one recording is damaged."""
    folder = tmp_path_factory.mktemp("elastic")
    source = prompts_dir / "validation"
    lines = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()[: 2 * ROWS]]
    names = [folder / "first", folder / "second"]
    for place, name in enumerate(names):
        name.mkdir()
        rows = [
            {"id": f"{name.stem}{number:02d}", "text": line["text"], "whisper_transcript": line["text"],
             "duration": line["duration"], "speaker": f"s{number // 7}",
             "audio": {"bytes": (source / line["file_name"]).read_bytes(), "path": None}}
            for number, line in enumerate(lines[place * ROWS : (place + 1) * ROWS])
        ]  # fmt: skip
        rows[DAMAGED]["audio"] = {"bytes": b"this is not audio", "path": None}
        for number in range(FILES):
            datasets.Dataset.from_list(rows[number::FILES]).to_parquet(str(name / f"train-{number}.parquet"))
    return write_teacher(folder / "teacher", tiny_en_dir), names


def distil(workplace, output: Path, kind: str, layout: Layout, *, steps: int, rows: int) -> list[list[str]]:
    """Run to a step, from the checkpoint if there is one, and return the samples of each batch."""
    teacher, names = workplace
    extra, count = DATA[kind]
    flags = {
        "teacher_model_name_or_path": teacher, "student_decoder_layers": 1, "output_dir": output,
        "train_dataset_name": "+".join(map(str, names[:count])), "precision": "full", "max_steps": steps,
        "per_device_train_batch_size": rows, "warmup_steps": 0, "lr_scheduler_type": "constant",
        "learning_rate": 1e-3, "adam_epsilon": 1e-3, "logging_steps": 1, "export_dtype": "float32",
        "shuffle_buffer_size": 16, "resume_from_checkpoint": "auto", "condition_on_prev_probability": 0.0,
    }  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for number in range(layout.processes):
        place = {"coordinator_address": address, "num_processes": layout.processes, "process_id": number}
        given = flags | (place if layout.processes > 1 else {})
        samples = output.parent / f"{output.name}-{steps}-{number}.jsonl"
        started.append((samples, start(given, [*extra, *layout.flags], samples, layout.devices)))
    for _, process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    parts = [map(json.loads, samples.read_text().splitlines()) for samples, _ in started]
    return [[name for part in batch for name in part] for batch in zip(*parts, strict=True)]


def start(flags: dict[str, Any], extra: list[str], samples: Path, devices: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, *(f"--{name}={value}" for name, value in flags.items()), *extra],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {quick_compilation.FLAGS}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "SAMPLES_FILE": str(samples),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("table", "processes"),
        ("packed tables, mixed", "processes, pmap"),
        ("stream", "processes"),
        ("packed streams, mixed", "processes"),
        ("table", "devices"),
        ("packed streams, mixed", "devices, pmap last"),
    ],
)
def test_other_processes_and_devices_use_the_same_samples_and_end_with_the_same_weights(
    kind, where, workplace, tmp_path
):
    layouts = LAYOUTS[where]
    rows = 3 if "processes" in where else 2  # 12 samples of an update, or 16
    whole = distil(workplace, tmp_path / "whole", kind, layouts[0], steps=STEPS, rows=rows)
    parts = []
    for number, layout in enumerate(layouts, 1):
        steps = number * STEPS // len(layouts)
        parts += distil(workplace, tmp_path / "parts", kind, layout, steps=steps, rows=rows)
    assert parts == whole
    assert len(whole) == STEPS
    if kind == "table":
        seen = [name for batch in whole for name in batch][:ROWS]
        assert len(set(seen)) == len(seen) == ROWS  # one of them is "", the damaged recording
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    errors = {
        name: np.linalg.norm(found[name] - leaf) / max(np.linalg.norm(leaf), 1e-30)
        for name, leaf in wanted.items()
    }
    print(f"\n{kind}, {where}: largest relative difference of a leaf {max(errors.values()):.1e}")
    assert max(errors.values()) <= 1e-5, {name: error for name, error in errors.items() if error > 1e-5}
