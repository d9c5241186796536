"""Nested dictionaries of arrays: flatten them to named paths, split and merge them."""

from collections.abc import Callable, Mapping
from typing import Any

Tree = dict[str, Any]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``{"encoder/conv1/kernel": leaf}`` for a nested dictionary, in its own order."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping):
            flat |= flatten(value, path)
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """Return the nested dictionary of flat paths, the inverse of :func:`flatten`.

    Raises:
        ValueError: If a path leads through a leaf.
    """
    tree: Tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for depth, parent in enumerate(parents):
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"there are a leaf and a branch at {'/'.join(parents[: depth + 1])!r}")
        if isinstance(node.get(name), dict):
            raise ValueError(f"there are a leaf and a branch at {path!r}")
        node[name] = leaf
    return tree


def partition(tree: Mapping[str, Any], predicate: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """Split a tree into the leaves whose path satisfies ``predicate`` and the others.

    Branches without a leaf are left out, so an empty part is ``{}``; :func:`merge`
    puts the two back together.
    """
    flat = flatten(tree)
    chosen = {path: leaf for path, leaf in flat.items() if predicate(path)}
    others = {path: leaf for path, leaf in flat.items() if path not in chosen}
    return unflatten(chosen), unflatten(others)


def merge(*trees: Mapping[str, Any]) -> Tree:
    """Join trees whose leaves do not overlap.

    Raises:
        ValueError: If two trees hold a leaf at the same path, or one a leaf and one a branch.
    """
    flat: dict[str, Any] = {}
    for tree in trees:
        for path, leaf in flatten(tree).items():
            if path in flat:
                raise ValueError(f"two trees hold a leaf at {path!r}")
            flat[path] = leaf
    return unflatten(flat)
