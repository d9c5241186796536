"""Trees taken apart by path and put together again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten, merge, partition, unflatten

TREE = {
    "encoder": {"norm": {"scale": 1, "bias": 2}, "conv1": {"kernel": 3}},
    "decoder": {"norm": {"scale": 4}, "embedding": 5},
    "step": 6,
}


def test_paths_join_names_in_the_order_of_the_tree():
    assert list(flatten(TREE).items()) == [
        ("encoder/norm/scale", 1),
        ("encoder/norm/bias", 2),
        ("encoder/conv1/kernel", 3),
        ("decoder/norm/scale", 4),
        ("decoder/embedding", 5),
        ("step", 6),
    ]


def test_unflatten_inverts_flatten():
    assert unflatten(flatten(TREE)) == TREE
    assert unflatten({}) == flatten({}) == {}


def test_leaves_are_passed_on_and_never_copied_or_opened():
    kernel, shape, pair = jnp.ones((2, 3)), jax.ShapeDtypeStruct((2,), jnp.float32), [np.zeros(1), None]
    tree = {"a": {"kernel": kernel, "shape": shape}, "pair": pair}
    flat = flatten(tree)
    assert flat["a/kernel"] is kernel
    assert flat["a/shape"] is shape
    assert flat["pair"] is pair
    assert unflatten(flat)["a"]["kernel"] is kernel


def test_a_prefix_stands_before_every_path():
    assert flatten(TREE["decoder"], "decoder") == {"decoder/norm/scale": 4, "decoder/embedding": 5}


def test_a_branch_without_leaves_has_no_path():
    assert flatten({"a": {"b": {}}, "c": 1}) == {"c": 1}


@pytest.mark.parametrize(
    "predicate",
    [
        lambda path: path.startswith("encoder/"),
        lambda path: path.endswith("/scale"),
        lambda path: path == "step",
        lambda path: True,
        lambda path: False,
    ],
)
def test_the_parts_of_a_partition_are_apart_and_merge_into_the_whole(predicate):
    chosen, others = partition(TREE, predicate)
    assert set(flatten(chosen)) == {path for path in flatten(TREE) if predicate(path)}
    assert set(flatten(chosen)).isdisjoint(flatten(others))
    assert merge(chosen, others) == merge(others, chosen) == TREE


def test_an_empty_part_is_an_empty_tree():
    assert partition(TREE, lambda path: False) == ({}, TREE)
    assert partition({}, lambda path: True) == ({}, {})


def test_any_number_of_trees_merge_and_stay_as_they_were():
    parts = [{"a": {"x": 1}}, {"a": {"y": 2}}, {"b": 3}, {}]
    assert merge(*parts) == {"a": {"x": 1, "y": 2}, "b": 3}
    assert merge() == {}
    assert parts == [{"a": {"x": 1}}, {"a": {"y": 2}}, {"b": 3}, {}]


def test_a_leaf_that_two_trees_hold_is_refused_by_its_path():
    with pytest.raises(ValueError, match="'encoder/norm/scale'"):
        merge(TREE, {"encoder": {"norm": {"scale": 1}}})


def test_a_leaf_where_another_tree_has_a_branch_is_refused_by_its_path():
    for trees in (({"a": {"b": 1}}, {"a": 2}), ({"a": 2}, {"a": {"b": 1}})):
        with pytest.raises(ValueError, match="a leaf and a branch at 'a'"):
            merge(*trees)


def test_bad_input_is_a_value_error_so_that_callers_of_the_library_need_no_other():
    with pytest.raises(ValueError, match="column 'words'"):
        raise InputError("there is no column 'words'")
