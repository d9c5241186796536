"""Line plots as SVG, inside a page or as a file, in colors that are readable in the dark too."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 420, 240
"""Size in user units; the page scales a plot to the width that there is."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 30

_HEAD = 44
"""Room for title and names above a plot that is a file of its own."""

COLORS = 6
"""Number of colors in :data:`STYLE`; more lines begin with the first again."""

_COLORS = """
:root { --c0: #2f6db5; --c1: #c2571a; --c2: #2e8552; --c3: #9a3f87; --c4: #80632c; --c5: #2f8696; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #7fb2f0; --c1: #f3a06c; --c2: #7fd0a0; --c3: #dd92cd; --c4: #d0b27a; --c5: #82ccd9; } }
"""
_DRAWING = """
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .hit { fill-opacity: 0; } svg .hit:hover { fill-opacity: 1; }
"""
_FILE_STYLE = """
:root { --soft: #666; --line: #ddd; }
@media (prefers-color-scheme: dark) { :root { --soft: #a5a5a5; --line: #3a3b3e; } }
"""

STYLE = (
    _COLORS
    + _DRAWING
    + """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .6rem .7rem; min-width: 0; }
figure h3 { margin: 0 0 .2rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
figcaption span { white-space: nowrap; margin-right: .9em; }
figcaption i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; }
"""
)
"""Rules of a page with plots; ``--soft`` and ``--line`` are the page's colors of small texts and of lines."""

_LINE_POINTS = 300
_MARKED_POINTS = 60

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of numbers with the ticks in it.

    Attributes:
        low: Least number.
        high: Largest number.
        ticks: Round numbers from ``low`` to ``high``.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], *, count: int = 5, from_zero: bool = False) -> "Axis":
        """Return an axis over some numbers, whose ends are ticks if it is to begin at zero."""
        low, high = min(values), max(values)
        if from_zero:
            low = min(low, 0.0)
        if high - low < 1e-12 * max(abs(high), 1e-12):
            pad = abs(low) / 2 or 1.0  # one value alone lies in the middle, or above zero
            low, high = (low, high + pad) if from_zero else (low - pad, high + pad)
        step = _round_step((high - low) / count)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if from_zero:
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            low, high = first * step, last * step
        return cls(low=low, high=high, ticks=tuple(number * step for number in range(first, last + 1)))

    def share(self, value: float) -> float:
        """Return where a number lies, from 0 at the low end to 1."""
        return (value - self.low) / (self.high - self.low)


def line_plot(title: str, lines: Mapping[str, Points], *, unit: str = "", from_zero: bool = True) -> str:
    """Return a figure with a line for each name, as HTML for a page with :data:`STYLE`; "" without a point.

    Args:
        title: What is drawn.
        lines: Steps and values by name, steps ascending; values that are not finite are left out.
        unit: Unit of the values, for texts.
        from_zero: Whether the axis of values begins at zero.
    """
    kept = _finite(lines)
    if not kept:
        return ""
    legend = "".join(
        f'<span><i style="background: {_color(number)}"></i>{escape(name)} '
        f"{_number(points[-1][1])}{escape(unit)}</span>"
        for number, (name, points) in enumerate(kept.items())
    )
    drawn = _draw(kept, unit=unit, from_zero=from_zero)
    label = escape(f"{title}: {_described(kept, unit)}")
    return (
        f"<figure><h3>{escape(title)}</h3>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{drawn}</svg>'
        f"<figcaption>{legend}</figcaption></figure>"
    )


def svg_file(title: str, lines: Mapping[str, Points], *, unit: str = "", from_zero: bool = True) -> str:
    """Return the same plot as a file of its own, with its title and the names in it; "" without a point."""
    kept = _finite(lines)
    if not kept:
        return ""
    names = "".join(
        f'<tspan fill="{_color(number)}">{escape(name)} {_number(points[-1][1])}{escape(unit)}   </tspan>'
        for number, (name, points) in enumerate(kept.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-_HEAD} {WIDTH} {HEIGHT + _HEAD}" '
        f'width="{2 * WIDTH}" role="img"><title>{escape(f"{title}: {_described(kept, unit)}")}</title>'
        f"<style>{_FILE_STYLE}{_COLORS}{_DRAWING}</style>"
        f'<text x="8" y="-24" style="font-weight: 600">{escape(title)}</text>'
        f'<text x="8" y="-6" xml:space="preserve">{names}</text>'
        f"{_draw(kept, unit=unit, from_zero=from_zero)}</svg>\n"
    )


def _finite(lines: Mapping[str, Points]) -> dict[str, Points]:
    kept = {name: [point for point in points if math.isfinite(point[1])] for name, points in lines.items()}
    return {name: points for name, points in kept.items() if points}


def _draw(lines: Mapping[str, Points], *, unit: str, from_zero: bool) -> str:
    thinned = {name: thin(points) for name, points in lines.items()}
    every = [point for points in thinned.values() for point in points]
    x = Axis.over([step for step, _ in every])
    y = Axis.over([value for _, value in every], from_zero=from_zero)
    drawn = [
        _line(name, points, x, y, color=_color(number), unit=unit)
        for number, (name, points) in enumerate(thinned.items())
    ]
    return _grid(x, y) + "".join(drawn)


def _described(lines: Mapping[str, Points], unit: str) -> str:
    return "; ".join(
        f"{name} {_number(points[-1][1])}{unit} at step {points[-1][0]:,.0f}"
        for name, points in lines.items()
    )


def _color(number: int) -> str:
    return f"var(--c{number % COLORS})"


def thin(points: Points, most: int = _LINE_POINTS) -> Points:
    """Return at most so many points: means of neighbours, the last point as it is."""
    if len(points) <= most:
        return points
    body = points[:-1]
    size = math.ceil(len(body) / (most - 1))
    parts = [body[first : first + size] for first in range(0, len(body), size)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    return [*means, points[-1]]


def _line(name: str, points: Points, x: Axis, y: Axis, *, color: str, unit: str) -> str:
    places = [_place(step, value, x, y) for step, value in points]
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
    drawn = f'<polyline class="line" stroke="{color}" points="{path}"/>'
    stride = math.ceil(len(points) / _MARKED_POINTS)
    few = len(points) <= 20
    for (step, value), (across, down) in list(zip(points, places, strict=True))[:: stride or 1]:
        text = escape(f"{name}, step {step:,.0f}: {_number(value)}{unit}")
        size = f'r="{2.5 if few else 6}"' + ("" if few else ' class="hit"')
        drawn += (
            f'<circle cx="{across:.1f}" cy="{down:.1f}" {size} fill="{color}"><title>{text}</title></circle>'
        )
    return drawn


def _grid(x: Axis, y: Axis) -> str:
    drawn = []
    for tick in y.ticks:
        _, down = _place(x.low, tick, x, y)
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>'
        )
        drawn.append(f'<text x="{_LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x.ticks:
        across, _ = _place(tick, y.low, x, y)
        anchor = "end" if across > WIDTH - 30 else "middle"
        drawn.append(
            f'<text x="{across:.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{_number(tick)}</text>'
        )
    return "".join(drawn)


def _place(step: float, value: float, x: Axis, y: Axis) -> tuple[float, float]:
    across = _LEFT + x.share(step) * (WIDTH - _LEFT - _RIGHT)
    return across, HEIGHT - _BOTTOM - y.share(value) * (HEIGHT - _TOP - _BOTTOM)


def _round_step(rough: float) -> float:
    """Return the next number of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _number(value: float) -> str:
    """Return a number in a few characters: 1.5k for thousands, 3e-05 for small ones."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"
