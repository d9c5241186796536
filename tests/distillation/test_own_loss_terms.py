"""Objectives from outside the package: two classes, handed to the Python API, and no file of the package."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.job import run
from flax_distil.distillation.loss import CrossEntropy
from flax_distil.distillation.vocabulary_loss import log_probs, token_losses
from tests.toys import observe, write_prompts

pytestmark = pytest.mark.integration


@dataclasses.dataclass(frozen=True)
class HiddenL1:
    """The absolute difference of the last hidden states."""

    weight: float
    metric = "l1_loss"
    needs_teacher = True
    needs_layers = False

    def __call__(self, inputs):
        student, teacher = inputs.outputs.student.hidden_BTD, inputs.outputs.teacher.hidden_BTD
        difference_BT = jnp.abs(student - jax.lax.stop_gradient(teacher)).astype(jnp.float32).mean(axis=2)
        return (difference_BT * inputs.batch.loss_mask_BT).sum() / inputs.tokens


@dataclasses.dataclass(frozen=True)
class ZLoss:
    """The squared logarithm of the softmax's denominator, as in PaLM (arXiv 2204.02311, section 5)."""

    weight: float
    metric = "z_loss"
    needs_teacher = False

    def sum_and_gradient(self, chunk):
        norms = chunk.student_norms
        log_z_C1 = norms.shift_C1 + norms.log_sum_C1
        probs_CV = jnp.exp(log_probs(chunk.student_CV, norms, 1.0))
        return chunk.sum(jnp.square(log_z_C1[:, 0])), 2.0 * log_z_C1 * probs_CV


@dataclasses.dataclass(frozen=True)
class NotANumber:
    """Zero, but not a number where a label holds a certain token: as a sample that breaks the computation."""

    weight: float
    token: int
    metric = "broken"
    needs_teacher = False
    needs_layers = False

    def __call__(self, inputs):
        is_hit = ((inputs.batch.labels_BT == self.token) & inputs.batch.loss_mask_BT).any()
        return jnp.where(is_hit, jnp.nan, 0.0) + 0.0 * inputs.outputs.student.hidden_BTD.sum()


@pytest.fixture(scope="module")
def trained(teacher, prompts_dir, tmp_path_factory):
    """A run with these three terms, whose first recording has a label that breaks the computation."""
    folder = tmp_path_factory.mktemp("own")
    path = write_prompts(folder, prompts_dir)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["whisper_transcript"] += " zebra"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer, _ = read_tokenizer(load_checkpoint(ModelSource(name=str(teacher)), config_only=True).files)
    *_, rare = tokenizer.encode(" zebra")
    config = build(
        DistillConfig,
        teacher_model_name_or_path=str(teacher), train_dataset_name=str(path), student_decoder_layers=1,
        per_device_train_batch_size=2, max_steps=8, warmup_steps=0, logging_steps=4, precision="full",
        output_dir=str(folder / "run"),
    )  # fmt: skip
    terms = {"l1": HiddenL1(0.5), "z": ZLoss(1e-2), "broken": NotANumber(1.0, rare)}
    return observe(config, loss_terms=terms)


def test_terms_of_ones_own_are_trained_with_and_logged(trained):
    assert trained.result.steps == 8
    assert [line["step"] for line in trained.lines] == [4, 8]
    for line in trained.lines:
        parts = 0.8 * line["ce_loss"] + line["kl_loss"] + 0.5 * line["l1_loss"] + 1e-2 * line["z_loss"]
        assert min(line["l1_loss"], line["z_loss"]) > 0
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
    assert trained.lines[1]["l1_loss"] != trained.lines[0]["l1_loss"]


def test_a_batch_that_gives_no_number_is_left_out_and_named_and_the_student_stays_finite(trained):
    left_out = [text for text in trained.messages if "the update is left out" in text]
    assert left_out
    assert all("prompts:0" in text for text in left_out)
    assert sum(line.get("skipped_updates", 0) for line in trained.lines) == len(left_out)
    student = load_file(trained.folder / "model.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in student.values())


def test_the_gradient_of_a_token_term_is_that_of_the_plain_formula():
    random = np.random.default_rng(0)
    hidden, embedding = (jnp.asarray(random.normal(size=(size, 4)), jnp.float32) for size in (6, 9))
    labels, mask = jnp.zeros(6, jnp.int32), jnp.arange(6) < 4
    terms = CrossEntropy(0.0), ZLoss(0.5)

    def fused(hidden):
        return token_losses(hidden, embedding, None, labels, mask, terms=terms, chunk_size=3).total

    def plain(hidden):
        return 0.5 * (jnp.square(jax.nn.logsumexp(hidden @ embedding.T, axis=1)) * mask).sum()

    (found, gradient), (wanted, expected) = (
        jax.value_and_grad(fused)(hidden),
        jax.value_and_grad(plain)(hidden),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_term_that_needs_a_teacher_is_refused_without_one(teacher, prompts_dir, tmp_path):
    config = build(
        DistillConfig,
        model_name_or_path=str(teacher), train_dataset_name=str(write_prompts(tmp_path, prompts_dir)),
        max_steps=2, warmup_steps=0, output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    with pytest.raises(InputError, match="the loss term 'l1' needs a teacher"):
        run(config, loss_terms={"l1": HiddenL1(0.5)})
