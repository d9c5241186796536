"""Token sequences as lines of text: one for each run of tokens of the same role.

::

    position  role       loss     tokens
           0  sot        given    <|startoftranscript|>
           1  timestamp  learned  <|notimestamps|>
           2  text       learned  ·That|·conference|·is|·full|.
           7  eot        learned  <|endoftext|>
"""

import itertools
from collections.abc import Iterator, Sequence

from flax_distil.inspection.token_view import TokenView

HEADING = f"{'position':>8}  {'role':9}  {'loss':7}  tokens (· is a space)"

COLORS = {
    "prompt": 35,
    "sot": 36,
    "language": 34,
    "task": 34,
    "timestamp": 33,
    "text": 32,
    "eot": 36,
}
"""ANSI colors of roles."""


def visible(text: str) -> str:
    """Return a token's text with its spaces and line ends visible."""
    return text.replace(" ", "·").replace("\n", "↵")


def token_lines(tokens: Sequence[TokenView], *, width: int = 110, color: bool = False) -> list[str]:
    """Return lines that show every token in order, its role, and whether it is learned.

    Args:
        tokens: A whole sequence.
        width: Characters of a line.
        color: Whether to use ANSI colors; what is not learned is dim.
    """
    lines, position = [], 0
    for (role, learned), run in itertools.groupby(tokens, key=lambda token: (token.role, token.learned)):
        found = list(run)
        opening = f"{position:>8}  {role:9}  {'learned' if learned else 'given':7}  "
        for text in _wrap([visible(token.text) for token in found], width - len(opening)):
            painted = f"\033[{'' if learned else '2;'}{COLORS[role]}m{text}\033[0m" if color else text
            lines.append(opening + painted)
            opening = " " * len(opening)
        position += len(found)
    return lines


def _wrap(texts: Sequence[str], width: int) -> Iterator[str]:
    """Join tokens with bars to lines of at most ``width`` characters, but for a longer token."""
    line = ""
    for text in texts:
        if line and len(line) + 1 + len(text) > width:
            yield f"{line}|"
            line = text
        else:
            line = f"{line}|{text}" if line else text
    yield line
