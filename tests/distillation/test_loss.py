"""The fused loss against the formula written plainly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.distillation import vocabulary_loss
from flax_distil.distillation.loss import (
    TokenLossTerm,
    hidden_state_error,
    make_evaluation_terms,
    make_terms,
    matched_teacher_layers,
)
from flax_distil.distillation.training_config import LossConfig

WEIGHTS = LossConfig(ce_weight=0.8, kl_weight=1.0, temperature=2.0)


def token_losses(*arguments, weights, **options):
    terms = tuple(term for term in make_terms(weights).values() if isinstance(term, TokenLossTerm))
    return vocabulary_loss.token_losses(*arguments, terms=terms, **options)


def plain(student_PD, student_VD, teacher, labels_P, mask_P, weights):
    logits = student_PD @ student_VD.T
    ce = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels_P[:, None], 1)[:, 0]
    target = jax.nn.log_softmax(teacher[0] @ teacher[1].T / weights.temperature)
    kl = (jnp.exp(target) * (target - jax.nn.log_softmax(logits / weights.temperature))).sum(1)
    return ((weights.ce_weight * ce + weights.kl_weight * weights.temperature**2 * kl) * mask_P).sum()


@pytest.fixture
def problem():
    random = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    labels, mask = jnp.asarray(random.integers(0, 29, 23)), jnp.asarray(random.random(23) < 0.6)
    return draw(23, 8), draw(29, 8), (draw(23, 12), draw(29, 12)), labels, mask


@pytest.mark.parametrize("chunk_size", [1, 5, 23, 64])
def test_value_and_gradients_equal_the_plain_formula_for_every_chunk_size(problem, chunk_size):
    student, embedding, teacher, labels, mask = problem

    def fused(student, embedding):
        sums = token_losses(student, embedding, teacher, labels, mask, weights=WEIGHTS, chunk_size=chunk_size)
        return 3.0 * sums.total

    value, gradients = jax.value_and_grad(fused, argnums=(0, 1))(student, embedding)
    wanted, wanted_gradients = jax.value_and_grad(
        lambda s, e: 3.0 * plain(s, e, teacher, labels, mask, WEIGHTS), argnums=(0, 1)
    )(student, embedding)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for got, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [5, 64])
def test_tokens_count_in_the_kl_by_their_weights_and_in_the_cross_entropy_alike(problem, chunk_size):
    student, embedding, teacher, labels, mask = problem
    weights_P = jnp.asarray(np.random.default_rng(3).choice([0.0, 0.5, 1.0], len(labels)), jnp.float32)

    def fused(student, embedding):
        sums = token_losses(
            student, embedding, teacher, labels, mask,
            weights=WEIGHTS, chunk_size=chunk_size, kl_weights_P=weights_P,
        )  # fmt: skip
        return sums.total

    def written_plainly(student, embedding):
        arguments = student, embedding, teacher, labels
        ce = plain(*arguments, mask, LossConfig(ce_weight=0.8, kl_weight=0.0))
        return ce + plain(*arguments, mask * weights_P, LossConfig(ce_weight=0.0, kl_weight=1.0))

    value, gradients = jax.value_and_grad(fused, argnums=(0, 1))(student, embedding)
    wanted, wanted_gradients = jax.value_and_grad(written_plainly, argnums=(0, 1))(student, embedding)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for got, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_kl_is_zero_when_student_equals_teacher(problem):
    student, embedding, _, labels, mask = problem
    sums = token_losses(student, embedding, (student, embedding), labels, mask, weights=WEIGHTS)
    assert abs(float(sums.losses["kl_loss"])) < 1e-5
    np.testing.assert_allclose(sums.total, 0.8 * sums.losses["ce_loss"], rtol=1e-5)


def test_masked_positions_change_nothing(problem):
    student, embedding, teacher, labels, mask = problem
    other = jnp.where(mask[:, None], student, 1e3)
    one = token_losses(student, embedding, teacher, labels, mask, weights=WEIGHTS, chunk_size=4)
    two = token_losses(
        other,
        embedding,
        teacher,
        jnp.where(mask, labels, -100),
        mask,
        weights=WEIGHTS,
        chunk_size=4,
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert int(one.tokens) == int(mask.sum())


def test_a_batch_without_any_label_gives_zero_and_zero_gradient(problem):
    student, embedding, teacher, labels, mask = problem
    value, gradient = jax.value_and_grad(
        lambda s: token_losses(s, embedding, teacher, labels, mask & False, weights=WEIGHTS).total
    )(student)
    assert float(value) == 0.0
    assert float(jnp.abs(gradient).max()) == 0.0


def test_losses_of_bfloat16_states_are_computed_in_float32(problem):
    student, embedding, teacher, labels, mask = problem
    half = lambda x: x.astype(jnp.bfloat16)  # noqa: E731
    wide = lambda x: half(x).astype(jnp.float32)  # noqa: E731
    teacher_half = jax.tree.map(half, teacher)
    got = token_losses(half(student), half(embedding), teacher_half, labels, mask, weights=WEIGHTS)
    wanted = token_losses(
        wide(student), wide(embedding), jax.tree.map(wide, teacher), labels, mask, weights=WEIGHTS
    )
    np.testing.assert_allclose(got.total, wanted.total, rtol=1e-5)


def test_cross_entropy_alone_needs_no_teacher(problem):
    student, embedding, _, labels, mask = problem
    sums = token_losses(
        student, embedding, None, labels, mask, weights=LossConfig(ce_weight=1.0, kl_weight=0.0)
    )
    assert float(sums.losses["kl_loss"]) == 0.0
    assert float(sums.total) == float(sums.losses["ce_loss"])


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [(2, 32, [15, 31]), (1, 4, [3]), (3, 4, [0, 1, 3]), (4, 4, [0, 1, 2, 3])],
)
def test_matched_layers_follow_the_recipe(student, teacher, layers):
    assert matched_teacher_layers(student, teacher) == layers
    if student > 1:
        assert layers == np.linspace(teacher // student - 1, teacher - 1, student).astype(int).tolist()


def test_a_student_deeper_than_its_teacher_has_nothing_to_be_compared_with():
    with pytest.raises(InputError, match=r"6 layers.*4"):
        matched_teacher_layers(6, 4)


def test_hidden_state_error_leaves_padding_out():
    student, teacher = jnp.zeros((1, 1, 3, 2)), jnp.full((2, 1, 3, 2), 2.0)
    mask = jnp.asarray([[True, False, True]])
    assert float(hidden_state_error(student, teacher, mask)) == 8.0
    assert float(hidden_state_error(student, teacher)) == 12.0


def test_smoothed_targets_give_the_loss_and_gradient_of_torch(problem):
    import torch

    student, embedding, _, labels, mask = problem
    weights = LossConfig(ce_weight=0.7, kl_weight=0.0, label_smoothing_factor=0.1)

    def fused(student, embedding):
        return token_losses(student, embedding, None, labels, mask, weights=weights, chunk_size=5).total

    value, gradients = jax.value_and_grad(fused, argnums=(0, 1))(student, embedding)
    leaves = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in (student, embedding)]
    targets = torch.tensor(np.where(mask, labels, -100)).long()
    wanted = 0.7 * torch.nn.functional.cross_entropy(
        leaves[0] @ leaves[1].T, targets, label_smoothing=0.1, reduction="sum"
    )
    wanted.backward()
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-5)
    for got, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(got, leaf.grad, rtol=1e-4, atol=1e-5)


def test_correct_labels_are_those_of_the_largest_logit_also_over_a_divided_vocabulary(problem):
    student, embedding, _, labels, mask = problem
    best = (student @ embedding[:28].T).argmax(axis=1)
    labels = jnp.where(jnp.arange(23) % 3 == 0, best, labels % 28)

    def count(part, axis=None):
        return token_losses(student, part, None, labels, mask, weights=WEIGHTS, vocabulary_axis=axis).correct

    wanted = int(((labels == best) & mask).sum())
    assert 3 < wanted < int(mask.sum())
    halves = embedding[:28].reshape(2, 14, -1)
    found = jax.vmap(lambda part: count(part, "tensor"), axis_name="tensor")(halves)
    assert [int(count(embedding[:28])), *found.tolist()] == [wanted] * 3


def test_smoothed_targets_are_the_same_over_a_divided_vocabulary(problem):
    """Two devices of a mapped axis, each with half of the rows of the embedding."""
    student, embedding, _, labels, mask = problem
    weights = LossConfig(ce_weight=1.0, kl_weight=0.0, label_smoothing_factor=0.2)
    halves = embedding[:28].reshape(2, 14, -1)

    def slope(part, axis=None):
        return jax.value_and_grad(
            lambda p: (
                token_losses(student, p, None, labels % 28, mask, weights=weights, vocabulary_axis=axis).total
            )
        )(part)

    values, slopes = jax.vmap(lambda part: slope(part, "tensor"), axis_name="tensor")(halves)
    wanted, wanted_slope = slope(embedding[:28])
    np.testing.assert_allclose(values, [wanted, wanted], rtol=1e-5)
    np.testing.assert_allclose(slopes.reshape(28, -1), wanted_slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_generalized_divergence_has_the_loss_and_gradient_of_the_formula_in_torch(problem, beta):
    """``generalized_jsd_loss`` of TRL, times T² and the weights of the rows."""
    import torch

    student, embedding, teacher, labels, mask = problem
    weights = LossConfig(ce_weight=0.0, kl_weight=0.7, temperature=1.5, beta=beta)
    weights_P = jnp.asarray(np.random.default_rng(3).choice([0.0, 0.5, 1.0], len(labels)), jnp.float32)

    def fused(student, embedding):
        sums = token_losses(
            student, embedding, teacher, labels, mask,
            weights=weights, chunk_size=5, kl_weights_P=weights_P,
        )  # fmt: skip
        return sums.total

    value, gradients = jax.value_and_grad(fused, argnums=(0, 1))(student, embedding)
    leaves = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in (student, embedding)]
    theirs = [torch.tensor(np.asarray(leaf)) for leaf in teacher]
    own_PV = torch.log_softmax(leaves[0] @ leaves[1].T / 1.5, dim=1)
    goal_PV = torch.log_softmax(theirs[0] @ theirs[1].T / 1.5, dim=1)
    kl = torch.nn.functional.kl_div
    if beta == 1:
        loss_PV = kl(goal_PV, own_PV, reduction="none", log_target=True)
    else:
        shares = torch.tensor([1 - beta, beta]).log()[:, None, None]
        mixture_PV = torch.logsumexp(torch.stack([own_PV, goal_PV]) + shares, dim=0)
        loss_PV = beta * kl(mixture_PV, goal_PV, reduction="none", log_target=True)
        loss_PV = loss_PV + (1 - beta) * kl(mixture_PV, own_PV, reduction="none", log_target=True)
    counted_P = torch.tensor(np.asarray(mask * weights_P))
    wanted = 0.7 * 1.5**2 * (loss_PV.sum(dim=1) * counted_P).sum()
    wanted.backward()
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-5)
    for got, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(got, leaf.grad, rtol=1e-4, atol=1e-5)


def test_an_evaluation_reports_the_same_losses_whatever_the_run_minimizes():
    plain = LossConfig(ce_weight=0.8, kl_weight=1.0)
    other = LossConfig(
        ce_weight=0.1, ce_weight_schedule="linear:0.8", kl_weight=1.0, kl_weight_schedule="cosine:0",
        temperature=4.0, temperature_schedule="linear:1", beta=0.5, label_smoothing_factor=0.1,
    )  # fmt: skip
    assert make_evaluation_terms(other) == make_evaluation_terms(plain)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": 1.5}, r"beta 1\.5 is not between 0 and 1"),
        ({"kl_weight_schedule": "cosine"}, "kl_weight_schedule 'cosine' is unknown: expected constant, or"),
        ({"kl_weight_schedule": "steps:1"}, "kl_weight_schedule 'steps:1' is unknown"),
        ({"ce_weight_schedule": "linear:-1"}, "ends at -1: expected a value of at least 0"),
        ({"temperature_schedule": "linear:0"}, "ends at 0: expected a value above 0"),
    ],
)
def test_impossible_losses_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        LossConfig(**values)


def test_a_smoothing_factor_outside_its_range_is_refused():
    with pytest.raises(InputError, match=r"label_smoothing_factor 1\.0"):
        LossConfig(label_smoothing_factor=1.0)


def test_negative_weights_are_refused():
    with pytest.raises(InputError, match="kl_weight -1"):
        LossConfig(kl_weight=-1.0)


def test_the_chunked_loss_is_the_plain_one_in_a_third_of_the_memory():
    """At the size of a real vocabulary: value and gradients within 1e-5, and what the compiler allocates."""
    random = np.random.default_rng(0)
    positions, width, vocabulary = 8 * 128, 16, 51865
    student_PD, teacher_PD = (random.normal(size=(positions, width)).astype(np.float32) for _ in range(2))
    student_VD, teacher_VD = (random.normal(size=(vocabulary, width)).astype(np.float32) for _ in range(2))
    labels_P = jnp.asarray(random.integers(0, vocabulary, positions, np.int32))
    mask_P = jnp.arange(positions) % 128 < 100
    weights = LossConfig().complete(has_teacher=True)

    def chunked(student_PD, student_VD, *teacher):
        labels, mask = labels_P[: len(student_PD)], mask_P[: len(student_PD)]
        return token_losses(student_PD, student_VD, teacher, labels, mask, weights=weights).total

    def plain(student_PD, student_VD, teacher_PD, teacher_VD):
        labels, mask = labels_P[: len(student_PD)], mask_P[: len(student_PD)]
        own, theirs = student_PD @ student_VD.T, teacher_PD @ teacher_VD.T
        ce_P = -jnp.take_along_axis(jax.nn.log_softmax(own), labels[:, None], axis=1)[:, 0]
        cold, goal = jax.nn.log_softmax(own / 2), jax.nn.log_softmax(theirs / 2)
        kl_P = (jnp.exp(goal) * (goal - cold)).sum(axis=1)
        return ((weights.ce_weight * ce_P + weights.kl_weight * 4 * kl_P) * mask).sum()

    programs = [jax.jit(jax.value_and_grad(loss, argnums=(0, 1))) for loss in (chunked, plain)]
    whole = student_PD, student_VD, teacher_PD, teacher_VD
    few = student_PD[:128], student_VD, teacher_PD[:128], teacher_VD
    (value, gradients), (wanted, wanted_gradients) = (run(*few) for run in programs)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for gradient, expected in zip(gradients, wanted_gradients, strict=True):
        assert np.abs(gradient - expected).max() <= 1e-5 * np.abs(expected).max()
    memory, plain_memory = (
        run.lower(*whole).compile().memory_analysis().temp_size_in_bytes for run in programs
    )
    assert memory <= plain_memory / 3
