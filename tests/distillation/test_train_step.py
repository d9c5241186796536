"""Properties of the training step: accumulation, sharing, freezing, precision, faults of the original."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.forward import encode
from flax_distil.distillation.loss import make_evaluation_terms, make_terms
from flax_distil.distillation.optimizer import make_optimizer
from flax_distil.distillation.step_config import StepConfig
from flax_distil.distillation.train_state import init_state, partition_params
from flax_distil.distillation.train_step import eval_step, train_step
from flax_distil.distillation.training_config import FreezeConfig, LossConfig, OptimizerConfig
from flax_distil.model.compute_options import ComputeOptions

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, max_steps=10)


@functools.cache
def compiled(step, *static):
    """Compile the step for a configuration and an optimizer; once for all tests."""
    return jax.jit(functools.partial(step, *static))


@functools.cache
def described(small_config, teacher, dtype, dropout, optimizer, weights, gradient_dtype):
    """Return the configuration of a step and its optimizer, the same ones for the same arguments."""
    options = ComputeOptions(dtype=dtype, use_scan=True)
    config = StepConfig(
        student=dataclasses.replace(small_config, decoder_layers=2, dropout=dropout),
        teacher=small_config if teacher else None, student_options=options, teacher_options=options,
        terms=make_terms(weights), evaluation_terms=make_evaluation_terms(weights), seed=7, max_steps=5,
        gradient_dtype=gradient_dtype,
    )  # fmt: skip
    return config, make_optimizer(optimizer)


@pytest.fixture
def setup(small_config, small_params):
    """Build a student with layers 0 and 3, its step and its state."""

    def build(
        freezing=None,
        *,
        teacher=True,
        shared=True,
        dtype="float32",
        dropout=0.0,
        optimizer=OPTIMIZER,
        weights=None,
        gradient_dtype="float32",
    ):
        layers = jax.tree.map(lambda leaf: leaf[jnp.array([0, 3])], small_params["decoder"]["layers"])
        student = small_params | {"decoder": small_params["decoder"] | {"layers": layers}}
        trainable, frozen = partition_params(student, freezing or FreezeConfig())
        config, transformation = described(
            small_config, teacher, dtype, dropout, optimizer, weights or LossConfig(), gradient_dtype
        )
        held = small_params if not shared else {"decoder": small_params["decoder"]}
        return (
            compiled(train_step, config, transformation),
            init_state(trainable, transformation),
            frozen,
            held if teacher else {},
            config,
        )

    return build


def one_big_batch(batch):
    return jax.tree.map(lambda leaf: leaf.reshape(1, -1, *leaf.shape[2:]), batch)


def test_k_micro_batches_equal_one_big_batch_and_count_as_one_step(setup, small_batch):
    run, state, frozen, teacher, _ = setup()
    accumulated, metrics = run(state, frozen, teacher, small_batch)
    whole, wanted = run(state, frozen, teacher, one_big_batch(small_batch))
    assert int(accumulated.step) == int(whole.step) == 1
    for name in wanted:
        # A divergence is a small difference of log-probabilities, each rounded to 5e-7 (those near -5).
        atol = 1e-7 if name == "kl_loss" else 0
        np.testing.assert_allclose(metrics[name], wanted[name], rtol=1e-6, atol=atol, err_msg=name)
    for path, leaf in flatten(whole.params).items():
        # Adam's first update is g / (|g| + 1e-8): where g is nearly 0, rounding alone decides.
        np.testing.assert_allclose(flatten(accumulated.params)[path], leaf, atol=2e-5, err_msg=path)


def test_the_frozen_encoder_has_no_moments_and_does_not_move_under_weight_decay(
    setup, small_batch, small_params
):
    optimizer = dataclasses.replace(OPTIMIZER, weight_decay=0.1)
    run, state, frozen, teacher, _ = setup(optimizer=optimizer)
    after, _ = jax.eval_shape(run, state, frozen, teacher, small_batch)
    assert set(after.params) == {"decoder"}
    trainable = sum(leaf.size for leaf in jax.tree.leaves(after.params))
    moments = sum(leaf.size for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim)
    assert moments == 2 * trainable
    assert set(frozen) == {"encoder"}


def test_shared_encoder_equals_a_separate_copy(setup, small_batch):
    results = []
    for shared in (True, False):
        run, state, frozen, teacher, _ = setup(shared=shared)
        results.append(run(state, frozen, teacher, small_batch)[1])
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], rtol=1e-5, err_msg=name)


def test_encoder_states_given_in_the_batch_equal_encoding(setup, small_batch, small_config, small_params):
    run, state, frozen, teacher, config = setup()
    mel = small_batch.mel_BRM
    states = encode(
        small_config, config.teacher_options, small_params["encoder"], jnp.asarray(mel.reshape(8, 40, 8))
    )
    cached = dataclasses.replace(small_batch, mel_BRM=None, encoder_out_BSD=states.reshape(2, 4, 20, 16))
    _, metrics = run(state, frozen, teacher, cached)
    _, wanted = run(state, frozen, teacher, small_batch)
    np.testing.assert_allclose(metrics["loss"], wanted["loss"], rtol=1e-6)


def test_training_lowers_the_loss_of_its_own_batch(setup, small_batch):
    run, state, frozen, teacher, _ = setup()
    losses = []
    for _ in range(8):
        state, metrics = run(state, frozen, teacher, small_batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]


def test_mse_counts_with_a_shared_encoder(setup, small_batch):
    run, state, frozen, teacher, _ = setup(weights=LossConfig(mse_weight=10.0))
    _, metrics = run(state, frozen, teacher, small_batch)
    parts = 0.8 * metrics["ce_loss"] + metrics["kl_loss"] + 10.0 * metrics["mse_loss"]
    assert float(metrics["mse_loss"]) > 0
    np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)


@pytest.mark.slow
def test_mse_compares_a_trained_encoder_too(setup, small_batch):
    freezing = FreezeConfig(freeze_encoder=False)
    losses = []
    for weights in (LossConfig(mse_weight=1.0), LossConfig(mse_weight=2.0)):
        run, state, frozen, teacher, _ = setup(freezing, shared=False, weights=weights)
        state, metrics = run(state, frozen, teacher, small_batch)
        losses.append(float(metrics["mse_loss"]))
        assert "encoder" in state.params
        assert frozen == {"encoder": {"position_embedding": frozen["encoder"]["position_embedding"]}}
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def emptied(batch: Batch, rows: slice, *, mel: float) -> Batch:
    """Return a batch in which these rows have one value as features, and no label."""
    return dataclasses.replace(
        batch,
        mel_BRM=jnp.asarray(batch.mel_BRM).at[:, rows].set(mel),
        loss_mask_BT=jnp.asarray(batch.loss_mask_BT).at[:, rows].set(False),
    )


def assert_close(params: Params, wanted: Params) -> None:
    for path, leaf in flatten(wanted).items():
        np.testing.assert_allclose(flatten(params)[path], leaf, atol=2e-5, err_msg=path)


ALL_TERMS = {
    "freezing": FreezeConfig(freeze_encoder=False),
    "shared": False,
    "weights": LossConfig(mse_weight=1.0),
}


def test_what_a_row_without_a_label_holds_changes_nothing(setup, small_batch):
    """So a sample that cannot be used does not train, and neither does a batch without any other."""
    run, state, frozen, teacher, _ = setup(**ALL_TERMS)
    whole, last = one_big_batch(small_batch), slice(-1, None)
    (after, metrics), (other, numbers) = (
        run(state, frozen, teacher, emptied(whole, last, mel=mel)) for mel in (-1.5, 3.0)
    )
    assert float(metrics["tokens"]) < float(whole.loss_mask_BT.sum())
    for name in numbers:
        np.testing.assert_allclose(metrics[name], numbers[name], rtol=2e-5, atol=1e-7, err_msg=name)
    assert_close(after.params, other.params)
    after, metrics = run(state, frozen, teacher, emptied(whole, slice(None), mel=-1.5))
    assert int(after.step) == 1
    assert {name: float(value) for name, value in metrics.items()} == dict.fromkeys(metrics, 0.0)
    for path, leaf in flatten(state.params).items():
        np.testing.assert_array_equal(flatten(after.params)[path], leaf, err_msg=path)


@pytest.mark.slow
def test_a_row_without_a_label_counts_in_no_mean(setup, small_batch):
    run, state, frozen, teacher, _ = setup(**ALL_TERMS)
    whole = one_big_batch(small_batch)
    after, metrics = run(state, frozen, teacher, emptied(whole, slice(-1, None), mel=-1.5))
    wanted, numbers = run(state, frozen, teacher, jax.tree.map(lambda leaf: leaf[:, :-1], whole))
    for name in numbers:
        np.testing.assert_allclose(metrics[name], numbers[name], rtol=2e-5, atol=1e-7, err_msg=name)
    assert_close(after.params, wanted.params)


def test_a_row_of_kl_weight_0_is_trained_on_its_label_alone(setup, small_batch):
    run, state, frozen, teacher, _ = setup()
    whole = one_big_batch(small_batch)
    weight_1B = np.array([[1, 0, 0, 1, 0, 0, 1, 0]], np.float32)
    mask_1BT = whole.loss_mask_BT & (weight_1B[:, :, None] > 0)
    _, wanted = run(state, frozen, teacher, whole)
    _, alone = run(state, frozen, teacher, dataclasses.replace(whole, loss_mask_BT=mask_1BT))
    _, metrics = run(state, frozen, teacher, dataclasses.replace(whole, kl_weight_B=weight_1B))
    kl = alone["kl_loss"] * alone["tokens"] / wanted["tokens"]
    np.testing.assert_allclose(metrics["ce_loss"], wanted["ce_loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["kl_loss"], kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], 0.8 * wanted["ce_loss"] + kl, rtol=1e-5)


def test_weights_and_temperature_of_a_step_are_those_of_its_schedule_without_a_new_compilation(
    setup, small_batch
):
    """Five updates: at the third one a linear schedule and a cosine are both half of the way."""
    scheduled = LossConfig(
        ce_weight=0.2, ce_weight_schedule="linear:1", kl_weight=1.0, kl_weight_schedule="cosine:0",
        temperature=3.0, temperature_schedule="linear:1", mse_weight=0.0, mse_weight_schedule="linear:2",
    )  # fmt: skip
    run, state, frozen, teacher, _ = setup(weights=scheduled)
    for step, values in ((0, (0.2, 1.0, 3.0, 0.0)), (2, (0.6, 0.5, 2.0, 1.0)), (4, (1.0, 0.0, 1.0, 2.0))):
        later = dataclasses.replace(state, step=jnp.int32(step))
        after, metrics = run(later, frozen, teacher, small_batch)
        names = "ce_weight", "kl_weight", "kl_temperature", "hidden_mse_weight"
        np.testing.assert_allclose([float(metrics[name]) for name in names], values, atol=1e-6)
        ce, kl, temperature, mse = values
        parts = ce * metrics["ce_loss"] + kl * metrics["kl_loss"] + mse * metrics["mse_loss"]
        np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)
        if step == 2:
            fixed = LossConfig(ce_weight=ce, kl_weight=kl, temperature=temperature, mse_weight=mse)
            plain, *_ = setup(weights=fixed)
            wanted, numbers = plain(later, frozen, teacher, small_batch)
            for name in numbers:
                np.testing.assert_allclose(metrics[name], numbers[name], rtol=1e-5, err_msg=name)
            assert_close(after.params, wanted.params)
    assert run._cache_size() == 1


def test_cross_entropy_alone_fine_tunes_without_a_teacher(setup, small_batch):
    run, state, frozen, _, _ = setup(teacher=False, weights=LossConfig(ce_weight=1.0, kl_weight=0.0))
    _, metrics = run(state, frozen, {}, small_batch)
    np.testing.assert_allclose(metrics["loss"], metrics["ce_loss"])
    assert float(metrics["kl_loss"]) == 0.0


@pytest.mark.parametrize("mode", ["half_mixed", pytest.param("full_mixed", marks=pytest.mark.slow)])
def test_mixed_precision_stays_near_full_precision_with_float32_masters(setup, small_batch, mode):
    run, state, frozen, teacher, _ = setup()
    _, wanted = run(state, frozen, teacher, small_batch)
    extra = {} if mode == "half_mixed" else {
        "gradient_dtype": "bfloat16",
        "optimizer": dataclasses.replace(OPTIMIZER, bfloat16_moments=True),
    }  # fmt: skip
    run, state, frozen, teacher, _ = setup(dtype="bfloat16", **extra)
    state, metrics = run(state, frozen, teacher, small_batch)
    np.testing.assert_allclose(metrics["loss"], wanted["loss"], rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_dropout_draws_anew_every_step_and_evaluation_draws_none(setup, small_batch):
    run, state, frozen, teacher, config = setup(dropout=0.5)

    def loss_at(step):
        later = dataclasses.replace(state, step=jnp.int32(step))
        return float(run(later, frozen, teacher, small_batch)[1]["loss"])

    assert loss_at(0) == loss_at(0) != loss_at(1)
    batch = jax.tree.map(lambda leaf: leaf[0], small_batch)
    *_, no_dropout = setup()
    one, two = (compiled(eval_step, c)(state.params, frozen, teacher, batch) for c in (config, no_dropout))
    np.testing.assert_allclose(one.total, two.total)


def test_evaluation_uses_temperature_one_and_counts_no_padding(setup, small_batch):
    _, state, frozen, teacher, config = setup()
    batch = jax.tree.map(lambda leaf: leaf[0], small_batch)
    sums = compiled(eval_step, config)(state.params, frozen, teacher, batch)
    colder = dataclasses.replace(config, evaluation_terms=make_terms(LossConfig(temperature=1.0)))
    assert float(sums.losses["kl_loss"]) == float(
        compiled(eval_step, colder)(state.params, frozen, teacher, batch).losses["kl_loss"]
    )
    assert int(sums.tokens) == small_batch.loss_mask_BT[0].sum()


def test_changing_only_padding_changes_no_gradient(setup, small_batch):
    run, state, frozen, teacher, _ = setup()
    labels_BT = np.where(small_batch.loss_mask_BT, small_batch.labels_BT, 3)
    padded = dataclasses.replace(small_batch, labels_BT=labels_BT)
    one, two = (run(state, frozen, teacher, batch)[0] for batch in (small_batch, padded))
    for path, leaf in flatten(one.params).items():
        np.testing.assert_array_equal(leaf, flatten(two.params)[path], err_msg=path)


@pytest.mark.slow
def test_gradient_checkpointing_and_scan_change_no_number(setup, small_batch, small_config):
    run, state, frozen, teacher, config = setup()
    _, wanted = run(state, frozen, teacher, small_batch)
    optimizer = make_optimizer(OPTIMIZER)
    for options in (ComputeOptions(), ComputeOptions(use_scan=True, gradient_checkpointing="full")):
        other = dataclasses.replace(config, student_options=options, teacher_options=options)
        _, metrics = compiled(train_step, other, optimizer)(state, frozen, teacher, small_batch)
        for name, value in wanted.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_student_and_teacher_of_different_vocabulary_are_refused(small_config):
    with pytest.raises(InputError, match="vocab_size: 97 and 98"):
        StepConfig(
            student=small_config, teacher=dataclasses.replace(small_config, vocab_size=98),
            student_options=ComputeOptions(), teacher_options=ComputeOptions(), terms={},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("freezing", "trained"),
    [
        ({"freeze_decoder": True}, {"token_embedding"}),
        ({"freeze_embed_positions": True}, {"token_embedding", "layers", "norm"}),
        ({}, {"token_embedding", "position_embedding", "layers", "norm"}),
    ],
)
def test_a_frozen_decoder_still_trains_its_token_embedding(freezing, trained, small_params):
    """As the original: layers, norm and positions are frozen, the tied projection is not."""
    trainable, frozen = partition_params(small_params, FreezeConfig(**freezing))
    assert set(trainable) == {"decoder"}
    assert set(trainable["decoder"]) == trained
    assert set(frozen["encoder"]) == set(small_params["encoder"])


def test_only_the_embedding_moves_where_encoder_and_decoder_are_frozen(setup, small_batch, small_params):
    run, state, frozen, teacher, _ = setup(FreezeConfig(freeze_encoder=True, freeze_decoder=True))
    after, metrics = run(state, frozen, teacher, small_batch)
    (path,) = flatten(after.params)
    assert path == "decoder/token_embedding/embedding"
    assert float(metrics["grad_norm"]) > 0
    moved = np.abs(flatten(after.params)[path] - flatten(small_params)[path])
    assert moved.max() == pytest.approx(1e-2, rel=1e-3)


def test_numbers_that_are_not_finite_change_no_parameter_and_no_moment(setup, small_batch):
    run, state, frozen, teacher, _ = setup()
    small_batch.mel_BRM[1, 2, 3, 4] = np.nan
    after, metrics = run(state, frozen, teacher, small_batch)
    assert not np.isfinite(metrics["loss"])
    assert int(after.step) == 1
    for path, leaf in flatten(state.params).items():
        np.testing.assert_array_equal(flatten(after.params)[path], leaf, err_msg=path)
    before, moments = (
        [leaf for leaf in jax.tree.leaves(tree.opt_state) if leaf.ndim] for tree in (state, after)
    )
    assert all((one == two).all() for one, two in zip(before, moments, strict=True))
