"""Find rows of other people's data sets that name files of this machine.

A data set on the Hub, a bucket or a web server could otherwise have private recordings of its reader
transcribed, trained on and uploaded.
"""

import os
from typing import TYPE_CHECKING

from flax_distil.storage.transports import protocol_of

if TYPE_CHECKING:
    import datasets

_PROTOCOLS = frozenset({"gs", "gcs", "s3", "s3a", "http", "https", "hf"})
"""Beginnings of the addresses that rows may name; others, such as ``file``, can reach this machine."""


def foreign_files(table: "datasets.Dataset", column: str, allowed: str) -> dict[int, str]:
    """Return a sentence for each row that names a file of this machine, by the number of the row.

    Args:
        table: Rows whose recordings are ``{"bytes", "path"}``; their bytes are not read.
        column: Column of recordings.
        allowed: Folder whose files may be named; "" for none.
    """
    import pyarrow.compute as compute

    found: dict[int, str] = {}
    start = 0
    for chunk in table.data[column].chunks:
        no_bytes = compute.struct_field(chunk, "bytes").is_null()
        if compute.any(no_bytes).as_py():
            named = compute.if_else(no_bytes, compute.struct_field(chunk, "path"), None).to_pylist()
            found |= {
                start + row: _sentence(column, path)
                for row, path in enumerate(named)
                if path and not _is_allowed(path, allowed)
            }
        start += len(chunk)
    if not found or table._indices is None:
        return found
    rows = table._indices.column(0).to_pylist()
    return {row: found[number] for row, number in enumerate(rows) if number in found}


def _is_allowed(path: str, allowed: str) -> bool:
    if protocol := protocol_of(path):
        return protocol in _PROTOCOLS
    return bool(allowed) and os.path.normpath(path).startswith(allowed + os.sep)


def _sentence(column: str, path: str) -> str:
    return f"column {column!r} names {path[:200]!r}, a file of this machine, but its data set is not"
