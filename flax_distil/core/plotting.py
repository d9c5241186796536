"""Draw plots in one style, where matplotlib is installed; no window is opened."""

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE = "#333333", "#9a9a9a"

PLOTS_REMEDY = 'matplotlib is not installed: pip install "flax-distil[plots]"'


def has_matplotlib() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


@contextlib.contextmanager
def new_figure(width: float, height: float) -> Iterator["Figure"]:
    """Yield an empty figure that needs no window.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.edgecolor": PALE,
        "axes.spines.top": False, "axes.spines.right": False, "text.color": INK, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "svg.hashsalt": "flax-distil", "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Characters that the font lacks become boxes; the text reports contain them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=(width, height), dpi=110, layout="constrained")


def say(axes: "Axes", text: str) -> None:
    """Write a sentence in a plot that has nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=PALE)
    axes.set(xticks=[], yticks=[])


def short(text: str, length: int) -> str:
    """Return a name cut to at most ``length`` characters; its end is kept."""
    return text if len(text) <= length else f"…{text[1 - length :]}"
