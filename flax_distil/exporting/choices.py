"""Which formats are written, with which quantization: the flags read against the table of formats."""

import dataclasses
from collections.abc import Iterable, Sequence

from flax_distil.core.errors import InputError
from flax_distil.exporting.format_table import FORMATS, Format, check_installed

_SAME = {
    "float32": ("float32", "f32", "fp32"),
    "float16": ("float16", "f16", "fp16"),
    "bfloat16": ("bfloat16", "bf16"),
}
"""Names that formats have for the element types of unquantized weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A format that is written.

    Attributes:
        name: Name of the format in the table.
        quantization: One of the format's quantizations.
    """

    name: str
    quantization: str

    @property
    def format(self) -> Format:
        """The line of the table."""
        return FORMATS[self.name]


def choose_formats(
    formats: Sequence[str], *, dtype: str | None, quantization: Sequence[str] | None
) -> tuple[Choice, ...]:
    """Return the formats to write, each of which can be written with its quantization.

    Args:
        formats: Names of formats; an item may hold several, separated by commas.
        dtype: Element type of all formats that are not quantized; None for the default of each.
        quantization: Words for all formats, or ``FORMAT:WORD``; an item may hold several.

    Raises:
        InputError: If a format or a quantization is unknown, a format is named twice, or a package that
            writes it is not installed.
    """
    names = _split(formats)
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        what = repr(unknown[0]) if unknown else "that is asked for"
        raise InputError(f"format {what} is unknown: expected some of {', '.join(FORMATS)}")
    if len(set(names)) < len(names):
        raise InputError(f"format {','.join(names)} names a format twice: name each once")
    for name in names:
        check_installed(name)
    words = _quantizations(_split(quantization or ()), names)
    return tuple(
        Choice(name=name, quantization=_quantization(name, words.get(name, words.get("")), dtype))
        for name in names
    )


def _split(items: Iterable[str]) -> list[str]:
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def _quantizations(items: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the quantization by format; the one for all formats has the name ''."""
    found: dict[str, str] = {}
    for item in items:
        name, _, word = item.rpartition(":")
        if name and name not in names:
            raise InputError(
                f"quantization {item!r} is for a format that is not written: expected {' or '.join(names)}"
            )
        if name in found:
            which = name or "all formats"
            raise InputError(f"quantization names {found[name]!r} and {word!r} for {which}: give one of them")
        found[name] = word
    return found


def _quantization(name: str, word: str | None, dtype: str | None) -> str:
    """Return the name that a format has for a quantization, or for an element type."""
    known = FORMATS[name].writer.QUANTIZATIONS
    wanted = word or dtype
    if wanted is None:
        return known[0]
    if wanted in known:
        return wanted
    for same in _SAME.values():
        if wanted in same and (found := next((other for other in same if other in known), None)):
            return found
    flag = "dtype" if word is None else "quantization"
    raise InputError(
        f"{flag} {wanted!r} is none of format {name}: expected one of {', '.join(known)}, for this format "
        f"alone as {name}:{known[0]}"
    )
