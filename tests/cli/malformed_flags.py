"""Flags and files of flags that are wrong in some way, drawn from a seed."""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

VALUES = (
    "", " ", "x", "-1", "0", "1.5", "1e400", "-1e400", "nan", "NaN", "inf", "-inf", "9" * 40, "9" * 5000,
    "-0", "0x10", "1_0", "null", "None", "true", "[]", "{}", "[1, 2", "{a: 1}", "'", '"', "[" * 3000,
    "{" * 3000, "- " * 3000, "&a [*a, *a]", "!!python/object:os.system x", "\udcff", "é" * 300, "../" * 50,
    "gs://b/x", "\x1b[31m", "a\nb", "=", "--", "%s%s%n", "$(ls)", "~", "/", "/dev/null", "😀",
)  # fmt: skip
"""Of any flag; those with a NUL cannot be given on a command line."""

PAIRS = list(itertools.pairwise("abcdefghi"))
LAUGHS = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}, *{p}, *{p}]\n" for p, n in PAIRS)
MERGES = "a: &a {x: 1}\n" + "".join(f"{n}: &{n} {{<<: [*{p}, *{p}]}}\n" for p, n in PAIRS)

FILES = (
    b"", b"null", b"~", b"3", b"- a\n- b", b"text", b"\xff\xfe", b"\xef\xbb\xbfseed: 3", b"seed: \x00",
    b"\x00" * 64, b"seed: [", b"seed: {a: {b: {c: {d: 1}}}}", b"seed: 1\nseed: 2", b"1: 2", b"? [a]\n: b",
    b"seed: !!python/none x", b"seed: " + b"9" * 5000, b"seed: " + b"[" * 20_000, b"seed: " + b"- " * 20_000,
    b"seed:\n" + b" " * 200_000, b"seed: .nan", b"seed: .inf", b"seed: 2001-01-01", b"seed: *a",
    b"seed: &a [*a]", b"%YAML 9.9\n---\nseed: 1", b"---\nseed: 1\n---\nseed: 2", b"\tseed: 1", b"seed: '",
    b"nonsense: 1", b"seed", b"seed:", b"__class__: 1", b"x" * (1 << 21), LAUGHS.encode(), MERGES.encode(),
)  # fmt: skip
"""Contents of files of flags."""


KINDS = ("value", "value", "value", "lone", "unknown", "missing", "file", "file", "entry")
"""What is wrong with a command line; ``file`` and ``entry`` are of its file of flags."""


class MalformedFlags(NamedTuple):
    """A command line without its command, and the file of flags that it names.

    Attributes:
        name: says what is wrong.
        arguments: flags; ``{file}`` stands for the path of the file.
        file: contents; None if there is none.
        suffix: ending of the file's name.
    """

    name: str
    arguments: list[str]
    file: bytes | None = None
    suffix: str = ".yaml"


def malformed_flags(
    seed: int, count: int, names: Sequence[str], needed: Sequence[str], *, kinds: Sequence[str] = KINDS
) -> Iterator[MalformedFlags]:
    """Yield command lines in which something is wrong, though a few may be right by chance.

    Args:
        seed: the same one gives the same.
        count: how many.
        names: of the flags of the command, without dashes.
        needed: flags and values without which the command does nothing.
        kinds: what is wrong, each as often as it stands there.
    """
    draw = random.Random(seed)
    for number in range(count):
        kind = draw.choice(kinds)
        name, value = draw.choice(names), draw.choice(VALUES)
        label = f"{number}-{kind}-{name}-{value[:20]!r}"
        if kind == "value":
            yield MalformedFlags(label, [*needed, f"--{name}={value}"])
        elif kind == "lone":
            yield MalformedFlags(label, [*needed, f"--{name}"])
        elif kind == "unknown":
            yield MalformedFlags(label, [*needed, f"--{name}s{draw.randrange(10)}", value])
        elif kind == "missing":
            yield MalformedFlags(label, [f"--{name}={value}"])
        elif kind == "file":
            contents, suffix = draw.choice(FILES), draw.choice((".yaml", ".json", ""))
            yield MalformedFlags(f"{label}{suffix}", [*needed, "--config={file}"], contents, suffix)
        else:
            entry = f"{name}: {value}\n".encode(errors="surrogateescape")
            yield MalformedFlags(label, [*needed, "--config", "{file}"], entry)
