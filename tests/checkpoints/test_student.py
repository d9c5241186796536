import dataclasses

import jax
import numpy as np
import pytest

from flax_distil.checkpoints.alignment_heads import renumber_alignment_heads
from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.student import init_student, spaced_layers
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten
from tests.model.programs import init_params


@pytest.mark.parametrize(
    ("count", "of", "layers"),
    [
        (2, 32, [0, 31]),
        (3, 32, [0, 15, 31]),
        (1, 32, [31]),
        (4, 4, [0, 1, 2, 3]),
        (6, 12, [0, 2, 4, 6, 8, 11]),
    ],
)
def test_layers_are_spaced_as_far_apart_as_they_can_be(count, of, layers):
    assert spaced_layers(count, of=of) == layers


@pytest.mark.parametrize(
    ("options", "encoder", "decoder"),
    [
        ({}, [0, 1, 2], [0, 1, 2, 3, 4]),
        ({"decoder_layer_indices": [3, 1]}, [0, 1, 2], [3, 1]),
        ({"encoder_layers": 2, "decoder_layers": 3}, [0, 2], [0, 2, 4]),
        ({"encoder_layer_indices": [1], "decoder_layers": 1}, [1], [4]),
    ],
)
def test_a_student_is_its_teacher_with_fewer_layers(small_checkpoint: Checkpoint, options, encoder, decoder):
    student = init_student(small_checkpoint, **options)
    assert student.config == dataclasses.replace(
        small_checkpoint.config, encoder_layers=len(encoder), decoder_layers=len(decoder)
    )
    leaves = flatten(student.params)
    for path, leaf in flatten(small_checkpoint.params).items():
        layers = encoder if path.startswith("encoder") else decoder
        expected = np.asarray(leaf)[layers] if "/layers/" in path else leaf
        np.testing.assert_array_equal(leaves[path], expected, err_msg=path)
    assert student.files.config["decoder_layers"] == len(decoder)


@pytest.mark.parametrize(
    ("layer_init", "shares"),
    [
        ("average", [[1 / 3, 1 / 3, 1 / 3, 0, 0], [0, 0, 0, 1 / 2, 1 / 2]]),
        ("collapse", [[-1, 1, 1, 0, 0], [0, 0, 0, 0, 1]]),
    ],
)
def test_layers_of_neighbors_are_merged_by_their_formula(small_checkpoint: Checkpoint, layer_init, shares):
    """LaCo's sum of differences of a group of three is θ₁ + θ₂ - θ₀, and that of two is its second layer."""
    student = init_student(small_checkpoint, decoder_layers=2, layer_init=layer_init)
    leaves = flatten(student.params)
    for path, leaf in flatten(small_checkpoint.params).items():
        merged = np.array(leaf)
        if path.startswith("decoder/layers/"):
            merged = np.einsum("st,t...->s...", np.array(shares), merged)
        np.testing.assert_allclose(leaves[path], merged, rtol=1e-6, atol=1e-7, err_msg=path)
        assert leaves[path].dtype == leaf.dtype
    assert "alignment_heads" not in student.files.generation_config
    assert student.files.config["decoder_layers"] == 2


def test_merging_no_layers_copies_them(small_checkpoint: Checkpoint):
    whole = init_student(small_checkpoint, encoder_layers=3, layer_init="average")
    for path, leaf in flatten(whole.params).items():
        np.testing.assert_array_equal(leaf, flatten(small_checkpoint.params)[path])
    assert whole.files.generation_config["alignment_heads"][0] == [1, 0]


def test_the_whole_encoder_is_shared_and_the_decoder_is_not(small_checkpoint: Checkpoint):
    teacher = flatten(small_checkpoint.params)
    for options in ({}, {"decoder_layers": 2}):
        student = flatten(init_student(small_checkpoint, **options).params)
        for path, leaf in student.items():
            assert (leaf is teacher[path]) == path.startswith("encoder/"), path
            if path.startswith("decoder/"):
                assert leaf.unsafe_buffer_pointer() != teacher[path].unsafe_buffer_pointer(), path


def test_a_student_of_fewer_positions_has_the_first_of_its_teachers(small_checkpoint: Checkpoint):
    config = dataclasses.replace(small_checkpoint.config, max_source_positions=150)
    params = init_params(config, jax.random.key(0))
    student = init_student(
        Checkpoint(config=config, params=params, files=small_checkpoint.files), max_source_positions=100
    )
    assert student.config.max_source_positions == student.files.config["max_source_positions"] == 100
    positions = [tree["encoder"]["position_embedding"]["embedding"] for tree in (student.params, params)]
    np.testing.assert_array_equal(positions[0], positions[1][:100])
    with pytest.raises(InputError, match="max_source_positions is 200: expected whole seconds of 50"):
        init_student(
            Checkpoint(config=config, params=params, files=small_checkpoint.files), max_source_positions=200
        )


def test_a_donated_student_leaves_its_teacher_alive(small_checkpoint: Checkpoint):
    student = init_student(small_checkpoint, decoder_layers=2).params["decoder"]
    jax.block_until_ready(
        jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(student)
    )
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(student))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(small_checkpoint.params))


def test_alignment_heads_follow_their_layers():
    teacher = {"alignment_heads": [[1, 0], [3, 2], [3, 4], [0, 1]], "max_length": 448}
    assert renumber_alignment_heads(teacher, [0, 3]) == {
        "alignment_heads": [[1, 2], [1, 4], [0, 1]],
        "max_length": 448,
    }


def test_alignment_heads_whose_layers_are_gone_leave_no_empty_key():
    teacher = {"alignment_heads": [[1, 0]], "max_length": 448}
    assert renumber_alignment_heads(teacher, [0, 3]) == {"max_length": 448}
    assert renumber_alignment_heads({"max_length": 448}, [0]) == {"max_length": 448}
    assert teacher["alignment_heads"] == [[1, 0]]


def test_a_student_carries_renumbered_heads(small_checkpoint: Checkpoint):
    assert small_checkpoint.files.generation_config["alignment_heads"][0] == [1, 0]
    files = init_student(small_checkpoint, decoder_layer_indices=[1, 4]).files
    assert files.generation_config["alignment_heads"] == [[0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_layers": 6}, "decoder_layers is 6: expected 1 to 5"),
        ({"encoder_layers": 0}, "encoder_layers is 0: expected 1 to 3"),
        ({"decoder_layer_indices": [0, 5]}, r"decoder_layer_indices \[0, 5\] asks for layers .* from 0 to 4"),
        ({"decoder_layer_indices": [-1]}, r"decoder_layer_indices \[-1\] asks for layers"),
        ({"encoder_layer_indices": []}, r"encoder_layer_indices \[\] asks for layers .* at least one"),
        (
            {"decoder_layers": 2, "decoder_layer_indices": [0, 4]},
            r"decoder_layers 2 and .* contradict",
        ),
        (
            {"layer_init": "average", "decoder_layer_indices": [0, 4]},
            r"layer_init 'average' merges neighboring layers, and decoder_layer_indices \[0, 4\] lists",
        ),
        ({"layer_init": "mean", "decoder_layers": 2}, "layer_init 'mean' is unknown: expected one of copy,"),
    ],
)
def test_layers_that_the_teacher_lacks_are_refused(small_checkpoint: Checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        init_student(small_checkpoint, **options)
