"""Distillation on streamed, mixed and changed data: a server that dies costs nothing but time."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_distil.core.nested import build
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.job import run as run_distillation
from flax_distil.storage.retries import SourceError
from tests.data.flaky_http_server import Behavior, serving
from tests.toys import observe

pytestmark = pytest.mark.integration

STEPS = 10


@pytest.fixture(scope="module")
def corpora(prompts_dir, tmp_path_factory) -> Path:
    """Two corpora of recorded prompts, one of them in several files."""
    folder = tmp_path_factory.mktemp("corpora")
    lines = (prompts_dir / "validation" / "metadata.jsonl").read_text().splitlines()[:16]
    rows = []
    for number, row in enumerate(map(json.loads, lines)):
        data = (prompts_dir / "validation" / row["file_name"]).read_bytes()
        audio = {"bytes": data, "path": "prompt.g722"}
        rows.append({"audio": audio, "text": row["text"], "id": f"row{number}", "speaker_id": "allison"})
    for number in range(4):
        datasets.Dataset.from_list(rows[3 * number : 3 * number + 3]).to_parquet(
            folder / f"long-{number}.parquet"
        )
    datasets.Dataset.from_list(rows[12:]).to_parquet(folder / "short.parquet")
    return folder


@pytest.fixture(scope="module")
def settings(teacher):
    """Ten updates on a mixture with masks, noise and prompts."""

    def settings(address: str, folder: Path, **changes) -> DistillConfig:
        values = {
            "teacher_model_name_or_path": str(teacher), "student_decoder_layers": 1,
            "train_dataset_name": f"{address}/long-{{0..3}}.parquet+{address}/short.parquet",
            "train_dataset_samples": "2+1", "streaming": True, "shuffle_buffer_size": 2,
            "label_column_name": "", "condition_on_prev_probability": 0.5,
            "mask_time_prob": 0.1, "white_noise_prob": 0.5, "speed_factors": [0.9, 1.0, 1.1],
            "per_device_train_batch_size": 2, "max_steps": STEPS, "warmup_steps": 1, "precision": "full",
            "logging_steps": 1, "save_steps": 100, "dataloader_num_workers": 2, "output_dir": str(folder),
            "source_retry_seconds": 0.0, "max_label_length": 64,
        }  # fmt: skip
        return build(DistillConfig, values | changes)

    return settings


@dataclass
class Mortal(Behavior):
    """Answers so many requests, and then none."""

    answers: int = 1_000_000

    def fault(self) -> str | None:
        return "500" if len(self.seen) > self.answers else None


@pytest.fixture(scope="module")
def server(corpora):
    """Gives the address and what the server does."""
    behavior = Mortal()
    with serving(corpora, behavior) as address:
        yield address, behavior


@pytest.fixture(scope="module")
def run(server, settings, tmp_path_factory):
    return observe(settings(server[0], tmp_path_factory.mktemp("runs") / "whole"))


def test_the_proportions_of_a_mixture_are_told(run):
    (told,) = [message for message in run.messages if message.startswith("samples drawn")]
    assert re.fullmatch(r"samples drawn: \S+ 14 \(70\.0%\), short 6 \(30\.0%\)", told)
    assert run.fns.train._cache_size() <= 2  # as many as lengths of labels


@pytest.mark.slow
def test_a_server_that_dies_leaves_a_checkpoint_from_which_the_very_run_goes_on(
    run, server, settings, tmp_path
):
    address, behavior = server
    folder = tmp_path / "interrupted"
    behavior.answers = len(behavior.seen) + 11  # the second epoch asks again
    with pytest.raises(SourceError) as stopped:
        run_distillation(settings(address, folder))
    behavior.answers = 1_000_000
    assert str(stopped.value).count("\n") == 0
    assert "500" in str(stopped.value)
    (checkpoint,) = (folder / "checkpoints").glob("checkpoint_*")
    done = int(checkpoint.name.rpartition("_")[2])
    assert 0 < done < STEPS
    resumed = observe(settings(address, folder, resume_from_checkpoint="latest"))
    assert resumed.by_step("loss") == run.by_step("loss")
    mine, theirs = (load_file(found / "model.safetensors") for found in (folder, run.folder))
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(mine[name], tensor, err_msg=name)
