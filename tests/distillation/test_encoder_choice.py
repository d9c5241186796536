"""Whether a run has one encoder or two, which is trained, and what the log says of it."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.sharing import equal_when_rounded
from flax_distil.checkpoints.student import init_student
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.core.tree import flatten
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.encoder_choice import choose_encoder, shape_difference
from flax_distil.distillation.setup.models import load_models
from flax_distil.parallel.make_partitioner import make_partitioner
from flax_distil.parallel.peak_flops import check_int8
from tests.toys import TOY


def config(**changes):
    given = {"teacher_model_name_or_path": "teacher", "train_dataset_name": "speech", "output_dir": "out"}
    return build(DistillConfig, given | changes)


@pytest.fixture
def load(teacher, tmp_path, caplog):
    """Export a student of the teacher and load it as a run does; return the models and what was logged."""

    def run(dtype="float16", change=lambda params: params, **flags):
        student = init_student(load_checkpoint(teacher), decoder_layers=1)
        folder = export_checkpoint(
            change(student.params),
            student.config,
            tmp_path / "student.en",
            files=student.files,
            dtype=jnp.dtype(dtype),
        )
        settings = config(teacher_model_name_or_path=str(teacher), model_name_or_path=str(folder), **flags)
        with caplog.at_level(logging.INFO, logger="flax_distil"):
            models = load_models(settings, make_partitioner("jit", settings.devices.mesh_shape), {})
        return models, caplog.text

    return run


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_an_encoder_that_its_file_rounded_is_still_the_teachers(load, dtype):
    """The devices hold one encoder, so a step runs one; its states can be kept."""
    models, said = load(dtype, cache_encoder_states=True)
    assert set(models.shardings.teacher.shapes) == set(models.teacher_params) == {"decoder"}
    assert models.config.freeze.freeze_encoder
    assert set(models.trainable) == {"decoder"}
    assert "the student's frozen encoder is the teacher's: it is held once and runs once in a step" in said
    assert "encoder: frozen; decoder: 1 layers, norm, position embedding, token embedding" in said


def test_int8_is_for_the_devices_and_the_export_has_the_weights_as_they_were_read(load, teacher):
    """Only kernels of frozen layers are converted; the others are held in the student's type."""
    models, _ = load("float32", teacher_dtype="int8", freeze_embed_positions=True, export_dtype="float32")
    held = flatten({"encoder": models.frozen["encoder"], "decoder": models.teacher_params["decoder"]})
    types = {leaf.dtype for path, leaf in held.items() if path.endswith("/kernel") and "/layers/" in path}
    assert types == {jnp.dtype("int8")}
    assert {leaf.dtype for path, leaf in held.items() if "norm" in path} == {jnp.dtype("bfloat16")}
    assert flatten(models.frozen["decoder"])["position_embedding/embedding"].dtype == jnp.bfloat16
    wanted = flatten(load_checkpoint(teacher).params["encoder"])
    for path, leaf in flatten(models.kept["encoder"]).items():
        np.testing.assert_array_equal(leaf, wanted[path])


def test_int8_is_refused_where_everything_is_trained():
    alone = {"teacher_model_name_or_path": None, "model_name_or_path": "model", "freeze_encoder": False}
    with pytest.raises(InputError, match="teacher_dtype int8 is for weights that are not trained"):
        config(teacher_dtype="int8", **alone)
    with pytest.raises(InputError, match="teacher_dtype 'int4' is unknown"):
        config(teacher_dtype="int4")


def test_int8_is_refused_on_a_tpu_without_it():
    check_int8("TPU v5 lite")
    with pytest.raises(InputError, match="int8 is slower than bfloat16 on TPU v4"):
        check_int8("TPU v4")


def trained(params):
    """Change one number of the encoder by less than a hundredth."""
    leaf = params["encoder"]["norm"]["scale"]
    encoder = params["encoder"] | {"norm": params["encoder"]["norm"] | {"scale": leaf.at[3].mul(1.005)}}
    return params | {"encoder": encoder}


def test_an_encoder_that_was_trained_is_another_and_is_trained_on(load):
    models, said = load(change=trained)
    assert set(models.teacher_params) == {"encoder", "decoder"}
    assert not models.config.freeze.freeze_encoder
    assert set(models.trainable) == {"encoder", "decoder"}
    assert "encoder is not shared with the teacher (its weights are others)" in said
    assert "both run in every step" in said
    assert "encoder: 1 layers, conv1, conv2, norm" in said


def test_freezing_another_encoder_is_done_where_it_is_asked_for_and_warned_of(load):
    models, said = load(change=trained, freeze_encoder=True)
    assert set(models.teacher_params) == {"encoder", "decoder"}
    assert set(models.trainable) == {"decoder"}
    assert "freeze_encoder is set, so an encoder that is not the teacher's" in said


@pytest.mark.parametrize("asked", [None, True, False])
def test_a_truncated_encoder_is_trained_unless_freezing_is_asked_for(asked):
    student = dataclasses.replace(TOY, encoder_layers=2)
    teacher = dataclasses.replace(TOY, encoder_layers=4)
    difference = shape_difference(student, teacher)
    assert difference == "its encoder_layers is 2 and not 4"
    choice = choose_encoder(config(freeze_encoder=asked), student, teacher, difference)
    assert choice.freeze == bool(asked)
    assert not choice.shared


def test_the_teachers_encoder_is_frozen_by_default_and_that_of_a_model_without_a_teacher():
    assert choose_encoder(config(), TOY, TOY, None).shared
    alone = config(teacher_model_name_or_path=None, model_name_or_path="model")
    assert choose_encoder(alone, TOY, None, None).freeze
    moved = choose_encoder(config(freeze_encoder=False), TOY, TOY, None)
    assert (moved.freeze, moved.shared) == (False, False)


def test_states_of_a_truncated_encoder_are_not_kept():
    with pytest.raises(InputError, match="encoder_layers is 2 and not 4"):
        choose_encoder(config(cache_encoder_states=True), TOY, TOY, "its encoder_layers is 2 and not 4")


def rounded(tree, *types):
    for dtype in types:
        tree = jax.tree.map(lambda leaf, dtype=dtype: jnp.asarray(leaf, dtype), tree)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def test_weights_are_equal_when_rounded_to_one_type_and_not_when_some_were_moved():
    random = np.random.default_rng(0)
    tree = {"a": {"kernel": jnp.asarray(random.normal(size=(7, 5)), jnp.float32)}, "b": jnp.ones(3)}
    for types in ((), ("float16",), ("bfloat16",), ("float16", "bfloat16")):
        assert equal_when_rounded(rounded(tree, *types), tree), types
        assert equal_when_rounded(tree, rounded(tree, *types)), types
    kernel = rounded(tree, "float16")["a"]["kernel"]
    step = float(jnp.finfo(jnp.float16).eps) * abs(kernel[2, 2])
    for moved in (kernel.at[2, 2].add(step), kernel.at[2, 2].set(jnp.nan)):
        assert not equal_when_rounded({"a": {"kernel": moved}, "b": tree["b"]}, tree)
    assert not equal_when_rounded({"b": tree["b"]}, tree)
    assert set(flatten(tree)) == {"a/kernel", "b"}
