"""Pieces of a self-contained page; every text that comes from outside is escaped here."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

from flax_distil.metrics.word_diff import DiffPart

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #666; --paper: #fff; --line: #ddd; --shade: #f5f5f3;
  --del: #a32020; --del-bg: #fbe3e3; --ins: #1c6b32; --ins-bg: #def3e3; --sub: #7a4b00; --sub-bg: #fdeccb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --soft: #a5a5a5; --paper: #1b1c1e; --line: #3a3b3e; --shade: #26272a;
    --del: #ff9d9d; --del-bg: #4a2222; --ins: #8fe0a5; --ins-bg: #1e3f29; --sub: #ffd48a;
    --sub-bg: #4a3714; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 78rem; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
p.note, caption, .about { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 40%, transparent) 0 0 / 2rem 100% no-repeat local,
  linear-gradient(to left, var(--paper) 40%, transparent) 100% 0 / 2rem 100% no-repeat local,
  linear-gradient(to right, var(--soft), transparent) 0 0 / .6rem 100% no-repeat scroll,
  linear-gradient(to left, var(--soft), transparent) 100% 0 / .6rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .3rem .45rem; border-bottom: 1px solid var(--line); }
th, td { text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid var(--soft); } td:first-child, th:first-child { text-align: left; }
td.text, th.text { text-align: left; white-space: normal; }
img.plot { background: #fff; border: 1px solid var(--line); border-radius: 6px; max-width: 100%;
  margin: .6rem 0; }
@media (prefers-color-scheme: dark) {
  img.plot { filter: invert(.89) hue-rotate(180deg); border-color: #ccc; } }
.sample { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .8rem; margin: .6rem 0; }
.sample p { margin: .25rem 0; }
.diff { overflow-wrap: anywhere; margin: .3rem 0; }
del, ins, .sub { border-radius: 3px; padding: 0 .2em; }
del { color: var(--del); background: var(--del-bg); }
ins { color: var(--ins); background: var(--ins-bg); text-decoration: underline; }
.sub { background: var(--sub-bg); color: var(--sub); }
.sub del, .sub ins { background: none; color: inherit; padding: 0; }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .8rem; } h1 { font-size: 1.3rem; } }
pre { background: var(--shade); padding: .8rem; overflow-x: auto; font-size: .82rem; }
"""

CONTEXT = 6
"""Words kept at each side of an error, where a long recording is right for longer."""


DIFF_LEGEND = (
    '<p class="note"><del>missing</del> <ins>invented</ins> '
    '<span class="sub"><del>reference</del> → <ins>heard</ins></span></p>'
)
"""What the colors of :func:`diff` mean."""


def page(title: str, sections: Iterable[str], *, style: str = "") -> str:
    """Return a whole document that loads nothing and runs nothing.

    Args:
        title: Plain text.
        sections: HTML.
        style: More rules, beside :data:`STYLE`.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a heading and HTML below it."""
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", *parts, "</section>"])


def note(text: str) -> str:
    """Return a sentence of plain text."""
    return f'<p class="note">{escape(text)}</p>'


def counted(number: int, noun: str) -> str:
    """Return a number of things, with the noun in the plural but for one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def table(rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Return rows of plain text as a table, the first being its heading.

    Args:
        rows: As many cells each.
        texts: Columns from the left that are words rather than figures.
    """

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="{"text" if number < texts else "figure"}">{escape(text)}</{tag}>'
            for number, text in enumerate(row)
        )

    head, *body = rows
    lines = [f"<tr>{cells(row, 'td')}</tr>" for row in body]
    return "\n".join(
        [
            '<div class="scroll" tabindex="0"><table>',
            f"<thead><tr>{cells(head, 'th')}</tr></thead>",
            "<tbody>",
            *lines,
            "</tbody></table></div>",
        ]
    )


def picture(svg: bytes, description: str) -> str:
    """Return an image that the page itself holds; what is in it cannot reach the page."""
    data = base64.b64encode(svg).decode()
    return f'<img class="plot" alt="{escape(description)}" src="data:image/svg+xml;base64,{data}">'


def details(title: str, text: str) -> str:
    """Return plain text that is shown on request."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def diff(parts: Sequence[DiffPart]) -> str:
    """Return an alignment in colors."""
    return f'<p class="diff">{" ".join(map(_part, parts)) or "(nothing)"}</p>'


def _part(part: DiffPart) -> str:
    reference, hypothesis = escape(" ".join(part.reference)), escape(" ".join(part.prediction))
    if part.kind == "delete":
        return f"<del>{reference}</del>"
    if part.kind == "insert":
        return f"<ins>{hypothesis}</ins>"
    if part.kind == "substitute":
        return f'<span class="sub"><del>{reference}</del> → <ins>{hypothesis}</ins></span>'
    words = part.reference
    if len(words) <= 2 * CONTEXT + 5:
        return reference
    left = len(words) - 2 * CONTEXT
    before, behind = " ".join(words[:CONTEXT]), " ".join(words[-CONTEXT:])
    return f'{escape(before)} <span class="about">[{left} words]</span> {escape(behind)}'
