"""Write files completely or not at all."""

import itertools
import os
from pathlib import Path

_NUMBERS = itertools.count()


def write_whole(path: Path, text: str) -> None:
    """Write a text file, or leave the existing file unchanged.

    The name of the scratch file beside it is short, whatever the name of the file.

    Args:
        path: Where; the folder exists.
        text: Written as UTF-8 with ``\\n`` at the ends of lines.

    Raises:
        OSError: if it cannot be written.
    """
    scratch = path.with_name(f".writing-{os.getpid()}-{next(_NUMBERS)}")
    try:
        with scratch.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(scratch, path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
