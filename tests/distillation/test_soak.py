"""Two thousand steps: nothing grows, nothing is compiled again, and every second is accounted for."""

import ctypes
import gc
import json
import os
import threading
import time
from pathlib import Path

import pytest

from flax_distil.core.nested import build
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.job import run
from flax_distil.distillation.monitoring.step_metrics import StepMetrics
from tests.toys import compilations, write_prompts

STEPS, WARM = 2000, 500


def resident_megabytes() -> float:
    """Return the memory that is in use, without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
def test_two_thousand_steps_leave_memory_files_and_threads_as_they_were(
    teacher, prompts_dir, tmp_path, monkeypatch
):
    measured, compiled_at = {}, {}
    add = StepMetrics.add

    def measuring(self, step, metrics, batch):
        add(self, step, metrics, batch)
        compiled_at[step] = len(compiled)
        if step in (WARM, STEPS - 1):
            files = len(os.listdir("/proc/self/fd"))
            measured[step] = (resident_megabytes(), files, threading.active_count())

    monkeypatch.setattr(StepMetrics, "add", measuring)
    prompts = write_prompts(tmp_path, prompts_dir)
    short = [line for line in prompts.read_text().splitlines(keepends=True) if "busy" in line]
    prompts.write_text("".join(short))
    config = build(
        DistillConfig, teacher_model_name_or_path=str(teacher), student_decoder_layers=1,
        train_dataset_name=str(prompts), per_device_train_batch_size=1,
        max_source_positions=100, max_duration_in_seconds=2.0, max_steps=STEPS, warmup_steps=1,
        precision="full", save_steps=50, logging_steps=50, dataloader_num_workers=2,
        output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    begun = time.perf_counter()
    with compilations() as compiled:
        run(config)
    passed = time.perf_counter() - begun
    record = json.loads((tmp_path / "out" / "goodput.json").read_text())
    print(measured, record["seconds"], passed)
    (before, files, threads), (after, files_then, threads_then) = measured.values()
    assert after - before < 25  # a copy of the state: what saves in the background hold varies by that much
    assert files_then <= files + 2  # a save may be under way at either time
    assert threads_then <= threads + 2
    assert compiled_at[STEPS] == compiled_at[WARM]
    assert sum(record["seconds"].values()) == pytest.approx(passed, rel=0.01)
    assert record["seconds"]["step"] > 0.5 * passed
