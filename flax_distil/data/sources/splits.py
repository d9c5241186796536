"""Which rows of a source are meant: split names, slices and sums of them."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flax_distil.core.errors import InputError

if TYPE_CHECKING:
    import datasets


def check_split_names(existing: Sequence[str], split: str | None, *, name: str) -> str:
    """Check a split expression against the splits there are.

    Args:
        existing: Names of splits.
        split: ``"train"``, ``"train[:10%]"``, ``"train+validation"``; None means the only one.
        name: The data set, for messages.

    Returns:
        The expression; the only split's name for None.

    Raises:
        InputError: naming the splits that exist.
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


def choose_split(
    splits: Mapping[str, "datasets.Dataset"], split: str | None, *, name: str
) -> "datasets.Dataset":
    """Return the rows that a split expression names.

    Args:
        splits: Split name to rows.
        split: As for :func:`check_split_names`.
        name: The data set, for messages.

    Raises:
        InputError: if there is no such split, or the slice is not one.
    """
    import datasets

    if not splits:
        raise InputError(f"data set {name!r} has no rows")
    split = check_split_names(list(splits), split, name=name)
    lengths = {key: len(table) for key, table in splits.items()}
    try:
        pieces = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
    except (ValueError, AssertionError) as error:
        raise InputError(f"cannot read split {split!r} of data set {name!r}: {error}") from error
    tables = []
    for piece in pieces:
        rows = range(lengths[piece.splitname])[slice(piece.from_, piece.to)]
        tables.append(splits[piece.splitname].select(rows))
    return concatenate_tables(tables, name=name)


def concatenate_tables(tables: Sequence["datasets.Dataset"], *, name: str) -> "datasets.Dataset":
    """Put tables behind each other; what one of them lacks is null there, and numbers become one type.

    Args:
        tables: At least one.
        name: The data set, for messages.

    Raises:
        InputError: if two have a column of one name and of types that no column can hold.
    """
    import datasets
    import pyarrow

    if len(tables) == 1:
        return tables[0]
    try:
        return datasets.concatenate_datasets(list(tables))
    except ValueError:
        plain = [table.flatten_indices() if table._indices is not None else table for table in tables]
    try:
        joined = pyarrow.concat_tables([table.data.table for table in plain], promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise InputError(
            f"the files or splits of data set {name!r} have columns of different types "
            f"({str(error).splitlines()[0].rstrip('.')}): give all of them one type, or read them apart"
        ) from error
    return datasets.Dataset(joined)
