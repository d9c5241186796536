"""Recipes: files of flags for whole chains of commands, which come with the package."""

from importlib import resources
from importlib.resources.abc import Traversable

from flax_distil.core.errors import InputError
from flax_distil.core.nested import nearest_name

PREFIX = "recipe:"
"""Beginning of a value of ``--config`` that names a recipe instead of a file."""

_SUFFIX = ".yaml"


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(
        file.name.removesuffix(_SUFFIX) for file in _folder().iterdir() if file.name.endswith(_SUFFIX)
    )


def read_recipe(name: str) -> str:
    """Return the text of a recipe, which is YAML with comments.

    Args:
        name: Name of the recipe, without ``recipe:``.

    Raises:
        InputError: If there is no such recipe.
    """
    names = recipe_names()
    if name not in names:
        near = nearest_name(name, names, prefix=PREFIX)
        known = f"{near} Known are" if near else ": expected one of"
        raise InputError(f"recipe {name!r} is not known{known} {', '.join(names)}")
    return (_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def list_recipes() -> str:
    """Return a table of the recipes with the first line of each, which says what it makes."""
    titles = {name: read_recipe(name).splitlines()[0].lstrip("# ") for name in recipe_names()}
    width = max(map(len, titles))
    return "\n".join(f"  {name:{width}}  {title}" for name, title in titles.items())


def _folder() -> Traversable:
    return resources.files("flax_distil") / "recipes"
