"""Every recipe begins to train: two updates of a toy with as many layers as the real models."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.cli.config_files import read_config_file
from flax_distil.cli.main import main
from flax_distil.cli.recipes import recipe_names
from flax_distil.model.config import WhisperConfig
from tests.parallel.layouts import random_params
from tests.toys import write_prompts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Compile quickly, as where slow tests are left out: nine steps of many layers would take ten minutes."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def models(tiny_en_dir, base_dir, tmp_path_factory):
    """Makes checkpoints with the layers and the mel bins of published ones, and a width of 16."""

    def make(name):
        size = name.removeprefix("openai/whisper-")
        folder = tmp_path_factory.mktemp("models") / size
        files = load_checkpoint(tiny_en_dir if size.endswith(".en") else base_dir, config_only=True).files
        shape = dataclasses.replace(
            WhisperConfig.preset(size), d_model=16, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=51864 if size.endswith(".en") else 51865,
        )  # fmt: skip
        params = random_params(shape, seed=0, scale=0.1)
        return export_checkpoint(params, shape, folder, files=files, dtype=jnp.float32)

    return make


@pytest.fixture(scope="module")
def labelled(prompts_dir, tmp_path_factory):
    """Short prompts with transcripts of a teacher, and with what could be their translations."""
    path = write_prompts(tmp_path_factory.mktemp("labelled"), prompts_dir)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"translation": row["text"]}) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_the_first_two_updates_of_a_recipe_run(name, models, labelled, tmp_path):
    given = read_config_file(f"recipe:{name}")["distil"]
    which = "teacher_model_name_or_path" if "teacher_model_name_or_path" in given else "model_name_or_path"
    sets = len(given.get("train_dataset_kl_weights", "").split("+"))
    flags = {
        which: models(given[which]), "train_dataset_name": "+".join([str(labelled)] * sets),
        "language": given.get("language", "en"), "global_batch_size": 2, "per_device_train_batch_size": 2,
        "max_steps": 2, "warmup_steps": 1, "logging_steps": 1, "output_dir": tmp_path / "student",
        "precision": "full",  # compiles in less time for a CPU
    }  # fmt: skip
    if str(given[which]).endswith(".en"):
        del flags["language"]
    arguments = [f"--{flag}={value}" for flag, value in flags.items()]
    assert main(["distil", f"--config=recipe:{name}", *arguments]) == 0
    lines = [json.loads(line) for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    student = load_checkpoint(tmp_path / "student", config_only=True).config
    assert student.decoder_layers == given.get("student_decoder_layers", student.decoder_layers)
