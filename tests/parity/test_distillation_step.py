"""One step of distillation against its formula, written out in PyTorch on transformers' modules.

Distil-Whisper, arXiv 2311.00430, section 3:
loss = (0.8 ΣCE + T² ΣKL(softmax(teacher/T) ‖ softmax(student/T))) / N, plus mse_weight times
the mean squared difference of hidden states; N label tokens of the whole batch, prompts and padding left out.
"""

import copy
import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import WhisperForConditionalGeneration

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.student import init_student
from flax_distil.core.tree import flatten, unflatten
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.loss import make_terms
from flax_distil.distillation.step_config import StepConfig
from flax_distil.distillation.train_state import init_state, partition_params
from flax_distil.distillation.train_step import train_step
from flax_distil.distillation.training_config import FreezeConfig, LossConfig
from flax_distil.model.compute_options import ComputeOptions
from tests.parity.reference import Pair

pytestmark = pytest.mark.integration

RELATIVE = (
    1e-4  # norm of the difference of a leaf over its norm; float32 sums in another order differ by 1e-5
)
TEMPERATURE = 2.0
OPTIONS = ComputeOptions(use_scan=True)


def labels(pair: Pair, texts: list[str], *, language: str | None) -> dict[str, np.ndarray]:
    """Four kinds of samples: plain, prompted, with timestamps, prompted with timestamps."""
    tokenizer, special = pair.tokenizer, pair.tokenizer.special
    rows, masks = [], []
    for index, text in enumerate(texts):
        previous = tokenizer.encode(f" {texts[index - 1]}") if index % 2 else []
        stamped = index % 4 >= 2
        prompt = tokenizer.prompt(language, "transcribe", stamped, previous)
        spoken = tokenizer.encode(f"<|0.00|> {text}<|2.00|>" if stamped else f" {text}")
        sequence = [*prompt, *spoken, special.eot]
        first = sequence.index(special.sot)  # the first target that counts is what follows it
        rows.append(sequence)
        masks.append([position >= first for position in range(len(sequence) - 1)])
    width = max(map(len, rows))
    tokens_BT = np.array([row + [special.eot] * (width - len(row)) for row in rows], np.int32)
    mask_BT = np.array([mask + [False] * (width - 1 - len(mask)) for mask in masks])
    assert special.sot_prev in tokens_BT
    assert (tokens_BT > special.timestamp_begin).any()
    return {"decoder_input_ids": tokens_BT[:, :-1], "labels": tokens_BT[:, 1:], "loss_mask": mask_BT}


def student_of(pair: Pair, *, with_encoder: bool) -> Checkpoint:
    """Two of the teacher's decoder layers, what is trained moved a little off the teacher's weights."""
    student = init_student(pair.ours, decoder_layers=2)
    generator = np.random.default_rng(0)

    def move(leaf):
        noise = generator.normal(size=leaf.shape).astype(np.float32)
        return leaf + 0.02 * np.std(leaf) * noise

    freezing = FreezeConfig(freeze_encoder=not with_encoder)
    moved = {
        path: move(leaf) if freezing.is_trainable(path) else leaf
        for path, leaf in flatten(student.params).items()
    }
    return dataclasses.replace(student, params=unflatten(moved))


def our_step(
    pair: Pair, student: Checkpoint, batch, features_BMR, *, frozen_encoder: bool, weights: LossConfig
):
    """Return metrics and gradients of the public step; its optimizer hands the gradient out as its state."""
    trainable, frozen = partition_params(student.params, FreezeConfig(freeze_encoder=frozen_encoder))
    teacher = pair.ours.params if not frozen_encoder else {"decoder": pair.ours.params["decoder"]}
    config = StepConfig(
        student=student.config, teacher=pair.ours.config, student_options=OPTIONS, teacher_options=OPTIONS,
        terms=make_terms(weights), chunk_size=32,
    )  # fmt: skip
    optimizer = optax.trace(decay=0.0)
    mel_BRM = jnp.asarray(features_BMR.numpy().transpose(0, 2, 1))
    # Two micro-batches: N counts the tokens of both.
    split = Batch(mel_BRM=mel_BRM, **{f"{name}_BT": leaf for name, leaf in batch.items()}).in_micro_batches(2)
    step = jax.jit(functools.partial(train_step, config, optimizer))
    state, metrics = step(init_state(trainable, optimizer), frozen, teacher, split)
    return jax.device_get(metrics), jax.device_get(state.opt_state.trace)


def recorded_layers(model: WhisperForConditionalGeneration) -> dict[str, list[torch.Tensor]]:
    """Have every layer of encoder and decoder leave its output in the lists returned."""
    outputs: dict[str, list[torch.Tensor]] = {"encoder": [], "decoder": []}
    for side, kept in outputs.items():
        for layer in getattr(model.model, side).layers:
            layer.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
    return outputs


def their_step(teacher, student, batch, features_BMR, *, weights: LossConfig):
    """Return the terms of the loss and its gradients, by name of the parameter."""
    tokens = torch.tensor(batch["decoder_input_ids"]).long()
    targets, mask = torch.tensor(batch["labels"]).long(), torch.tensor(batch["loss_mask"])
    taught, said = recorded_layers(teacher), recorded_layers(student)
    with torch.no_grad():
        teacher_logits = teacher(input_features=features_BMR, decoder_input_ids=tokens).logits[mask]
    logits = student(input_features=features_BMR, decoder_input_ids=tokens).logits[mask]
    count = mask.sum()
    ce = F.cross_entropy(logits, targets[mask], reduction="sum") / count
    kl = TEMPERATURE**2 * F.kl_div(
        F.log_softmax(logits / TEMPERATURE, dim=-1), F.log_softmax(teacher_logits / TEMPERATURE, dim=-1),
        log_target=True, reduction="sum",
    ) / count  # fmt: skip
    terms = {"ce_loss": ce, "kl_loss": kl}
    loss = weights.ce_weight * ce + weights.kl_weight * kl
    if weights.mse_weight:
        # Decoder: linspace(4 // 2 - 1, 3, 2) takes layers 1 and 3. Encoder: layer by layer.
        pairs = list(zip(said["decoder"], (taught["decoder"][1], taught["decoder"][3]), strict=True))
        mse = torch.stack([(a - b)[mask].square().mean() for a, b in pairs]).mean()
        encoders = zip(said["encoder"], taught["encoder"], strict=True)
        mse = mse + torch.stack([(a - b).square().mean() for a, b in encoders]).mean()
        loss, terms["mse_loss"] = loss + weights.mse_weight * mse, mse
    loss.backward()
    gradients = {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in student.named_parameters()
    }
    return {name: term.item() for name, term in (terms | {"loss": loss}).items()}, gradients


def as_our_tree(gradients: dict[str, torch.Tensor], folder: Path, like: Checkpoint) -> dict[str, np.ndarray]:
    """Read gradients as if they were a checkpoint's weights: transposed and stacked into our leaves."""
    like.files.write(folder)
    save_file({name: leaf.contiguous() for name, leaf in gradients.items()}, folder / "model.safetensors")
    return flatten(jax.device_get(load_checkpoint(folder).params))


@pytest.mark.parametrize(
    ("name", "language", "frozen_encoder", "weights"),
    [
        ("tiny_en", None, True, LossConfig()),
        pytest.param("tiny_en", None, False, LossConfig(mse_weight=1.0), marks=pytest.mark.slow),
        pytest.param("base", "en", True, LossConfig(), marks=pytest.mark.slow),
    ],
    ids=["tiny.en", "tiny.en training its encoder with MSE", "base"],
)
def test_loss_and_every_gradient_equal_those_of_the_formula(
    request, held_out, tmp_path, name, language, frozen_encoder, weights
):
    pair = request.getfixturevalue(name)
    # The third of the four by length has a position that is no measure of anything once the encoder's own
    # states enter the loss: half a unit in the last place of its features moves it a thousand times further
    # than any other (see test_logits.py), in float64 too. Its neighbours are as good as any.
    recordings = held_out.of_all_lengths(8).take([0, 1, 5, 7])
    batch = labels(pair, recordings.texts, language=language)
    student, weights = student_of(pair, with_encoder=not frozen_encoder), weights.complete(has_teacher=True)
    metrics, gradients = our_step(
        pair, student, batch, recordings.features_BMR, frozen_encoder=frozen_encoder, weights=weights
    )
    folder = export_checkpoint(
        student.params, student.config, tmp_path / "student", files=student.files, dtype=jnp.float32
    )
    theirs = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    theirs.model.encoder.requires_grad_(not frozen_encoder)
    terms, reference = their_step(
        copy.deepcopy(pair.theirs), theirs, batch, recordings.features_BMR, weights=weights
    )
    for term, value in terms.items():
        np.testing.assert_allclose(metrics[term], value, rtol=RELATIVE, err_msg=term)
    wanted = as_our_tree(reference, tmp_path / "gradients", student)
    found = flatten(gradients)
    assert set(found) == {p for p in wanted if FreezeConfig(freeze_encoder=frozen_encoder).is_trainable(p)}
    errors = {
        path: np.linalg.norm(leaf - wanted[path]) / np.linalg.norm(wanted[path])
        for path, leaf in found.items()
    }
    worst = max(errors, key=errors.get)
    assert errors[worst] <= RELATIVE, f"{worst} differs by {errors[worst]:.1e}"
