"""Choose the rows of a data set by split expressions: names of splits, slices and sums of them."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from flax_distil.core.errors import InputError
from flax_distil.data.sources.concatenate import concatenate_tables
from flax_distil.data.sources.file_kinds import KINDS

if TYPE_CHECKING:
    import datasets


def check_split_names(existing: Sequence[str], split: str | None, *, name: str) -> str:
    """Check that the splits of a split expression exist.

    Args:
        existing: Names of the existing splits.
        split: Expression such as ``"train"``, ``"train[:10%]"`` or ``"train+validation"``; None means the
            only split.
        name: The data set, for messages.

    Returns:
        The expression; for None, the name of the only split.

    Raises:
        InputError: If a split does not exist; the message names the existing splits.
    """
    listed = ", ".join(existing)
    if split is None:
        if len(existing) != 1:
            raise InputError(f"data set {name!r} has several splits: choose one of {listed}")
        return existing[0]
    for part in split.split("+"):
        wanted = re.sub(r"\[.*$", "", part).strip()
        if wanted not in existing:
            raise InputError(f"data set {name!r} has no split {wanted!r}: choose one of {listed}")
    return split


def whole_splits(splits: Collection[str], split: str | None, *, name: str) -> list[str]:
    """Return the splits that a split expression names, without its slices.

    Args:
        splits: Names of the splits that exist.
        split: Split expression, as for :func:`check_split_names`.
        name: The data set, for messages.

    Raises:
        InputError: If there are no splits, or a named split does not exist.
    """
    if not splits:
        raise InputError(f"data set {name!r} holds no files of rows: expected {KINDS}")
    chosen = check_split_names(list(splits), split, name=name)
    return list(dict.fromkeys(part.partition("[")[0].strip() for part in chosen.split("+")))


def choose_split(
    splits: Mapping[str, "datasets.Dataset"], split: str | None, *, name: str
) -> "datasets.Dataset":
    """Return the rows that a split expression names.

    Args:
        splits: Rows of each split, by its name.
        split: Split expression, as for :func:`check_split_names`.
        name: The data set, for messages.

    Raises:
        InputError: If there is no such split, or a slice is not valid.
    """
    import datasets

    if not splits:
        raise InputError(f"data set {name!r} has no rows")
    split = check_split_names(list(splits), split, name=name)
    lengths = {key: len(table) for key, table in splits.items()}
    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
    except (ValueError, AssertionError) as error:
        raise InputError(f"cannot read split {split!r} of data set {name!r}: {error}") from error
    tables = []
    for part in parts:
        rows = range(lengths[part.splitname])[slice(part.from_, part.to)]
        tables.append(splits[part.splitname].select(rows))
    return concatenate_tables(tables, name=name)
