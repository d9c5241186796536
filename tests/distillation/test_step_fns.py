"""The programs of a run: features when their turn comes, one encoder or two, products in full."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.audio.augmentation import Talkers
from flax_distil.audio.augmentation_config import AugmentationConfig
from flax_distil.audio.mel import log_mel
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.forward import with_features
from flax_distil.distillation.setup.shardings import TrainShardings
from flax_distil.distillation.setup.step_fns import TrainStepFns
from flax_distil.parallel.make_partitioner import make_partitioner
from flax_distil.parallel.partitioner import MICRO_BATCHES
from tests.parallel.layouts import SMALL, TEACHER, config, partitioner_for

NOISY = AugmentationConfig(
    mask_time_prob=0.2, mask_feature_prob=0.2, white_noise_prob=0.5, babble_noise_prob=0.7
)


@pytest.fixture(scope="module")
def audio():
    random = np.random.default_rng(0)
    return Batch(
        samples_BW=jnp.asarray(random.integers(-9000, 9000, (6, SMALL.window_samples)), jnp.int16),
        lengths_B=jnp.array([6400, 3200, 5000, 6400, 1600, 4000]),
        seed_B=jnp.arange(6, dtype=jnp.uint32),
    )


def layout_of(run, student=SMALL, teacher=TEACHER):
    return TrainShardings(run, partitioner_for(run), student=student, teacher=teacher, shares_encoder=True)


def test_features_of_a_micro_batch_are_those_of_the_whole_batch(audio):
    """Babble too: its talkers are all recordings of the update, whichever micro-batch has them."""
    step = layout_of(config(freeze_encoder=True)).step

    @jax.jit
    def mel(audio):
        talkers = Talkers(samples_NW=audio.samples_BW, lengths_N=audio.lengths_B, first=jnp.int32(2))
        rows = jax.tree.map(lambda array: array[2:4], audio)
        heard = (audio, NOISY), (rows, NOISY, talkers), (Batch(samples_BW=audio.samples_BW),)
        return [with_features(step, {}, *given).mel_BRM for given in heard]

    whole, part, clean = mel(audio)
    assert (np.abs(whole - clean).max(axis=(1, 2)) > 0).all()
    np.testing.assert_allclose(part, whole[2:4], atol=1e-5)


def test_a_teacher_with_a_longer_window_hears_the_same_and_silence_behind_it(audio):
    """Masked alike; each model gets the features of its own window of samples."""
    teacher = dataclasses.replace(TEACHER, max_source_positions=30)
    layout = TrainShardings(
        config(freeze_encoder=False), partitioner_for(config(freeze_encoder=False)), student=SMALL,
        teacher=teacher, shares_encoder=False,
    )  # fmt: skip
    masks = AugmentationConfig(mask_time_prob=0.3)
    found = with_features(layout.step, layout.teacher.shapes, audio, masks)
    samples_BW = audio.samples_BW
    assert found.mel_BRM.shape == (6, 40, 8)
    assert found.teacher_mel_BRM.shape == (6, 60, 8)
    padded_BW = jnp.pad(samples_BW, ((0, 0), (0, 3200)))
    clean = [log_mel(samples, num_mel_bins=8) for samples in (samples_BW, padded_BW)]
    is_masked = (found.mel_BRM == 0) & (clean[0] != 0)
    assert 0 < is_masked.sum() < is_masked.size
    for mel, whole in zip((found.mel_BRM, found.teacher_mel_BRM), clean, strict=True):
        masked = jnp.pad(is_masked, ((0, 0), (0, mel.shape[1] - 40), (0, 0)))
        np.testing.assert_array_equal(mel, jnp.where(masked, 0.0, whole))


def described(run, student, teacher, micro_batches):
    """Lower the training step of a run over one row."""
    partitioner = make_partitioner("jit", run.devices.mesh_shape)
    layout = TrainShardings(run, partitioner, student=student, teacher=teacher, shares_encoder=True)
    optimizer = run.optimizer_for(10)
    fns = TrainStepFns(optimizer, layout, partitioner)
    state = layout.state(optimizer)
    rows = (micro_batches, jax.device_count())
    batch = Batch(
        samples_BW=jax.ShapeDtypeStruct((*rows, student.window_samples), jnp.int16),
        decoder_input_ids_BT=jax.ShapeDtypeStruct((*rows, 8), jnp.int32),
        labels_BT=jax.ShapeDtypeStruct((*rows, 8), jnp.int32),
        loss_mask_BT=jax.ShapeDtypeStruct((*rows, 8), jnp.bool_),
    )
    trees = [partitioner.describe(tree.shapes, tree.specs) for tree in (state, layout.frozen, layout.teacher)]
    return fns.train.trace(*trees, partitioner.describe(batch, MICRO_BATCHES))


@pytest.mark.slow
def test_no_more_than_one_micro_batch_of_features_is_held():
    """Windows of 30 s: the mel frames of all samples together would take 15 MB."""
    student, teacher = (
        dataclasses.replace(shape, max_source_positions=1500, num_mel_bins=80) for shape in (SMALL, TEACHER)
    )
    run = config(freeze_encoder=True, mse_weight=0.0)
    step = described(run, student, teacher, 16).lower().compile()
    assert step.memory_analysis().temp_size_in_bytes < 16 * 3000 * 80 * 4


def products(jaxpr):
    """Yield every product of matrices and convolution in a program, those of its parts too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize(("precision", "dtype"), [("full", "float32"), ("half_mixed", "bfloat16")])
def test_full_precision_is_float32_in_teacher_and_products(precision, dtype, monkeypatch):
    """On an accelerator too, whose products of float32 are TF32 or bfloat16 unless told otherwise."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    run = config(freeze_encoder=True, precision=precision)
    layout = layout_of(run)
    held = jax.tree.leaves([layout.teacher.shapes, layout.frozen.shapes])
    assert {leaf.dtype for leaf in held} == {jnp.dtype(dtype)}
    with jax.default_matmul_precision(run.matmul_precision):
        found = list(products(described(run, SMALL, TEACHER, 1).jaxpr.jaxpr))
    assert len(found) > 20
    if precision == "full":
        highest = jax.lax.Precision.HIGHEST
        assert {equation.params["precision"] for equation in found} == {(highest, highest)}
        assert {str(part.aval.dtype) for equation in found for part in equation.invars} == {"float32"}
