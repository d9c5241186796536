"""Pictures of an evaluation, as SVG: error rates by data set, in noise, and against speed."""

import dataclasses
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flax_distil.core.plotting import INK, PALE, new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#3366aa", "#d1782a", "#3f8f5f", "#a4508b", "#8a6d3b", "#4aa3b5", "#c2485f", "#6f6f6f")

NAME_LENGTH = 40
"""Characters of a model's name in a legend."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """A word error rate.

    Attributes:
        wer: Percent.
        interval: Its 95 % interval.
    """

    wer: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, figures: dict[str, Any]) -> "Rate | None":
        """Return the rate of some figures; None where there were no references."""
        if figures["wer"] is None:
            return None
        wer = figures["wer"]
        low, high = figures["wer_interval"] or (wer, wer)
        return cls(wer=wer, interval=(min(low, wer), max(high, wer)))

    @property
    def bars(self) -> tuple[float, float]:
        """How far the interval reaches below and above."""
        return self.wer - self.interval[0], self.interval[1] - self.wer


def data_set_plot(rates: dict[str, dict[str, Rate | None]]) -> bytes:
    """Draw the rate of every model on every data set, with intervals.

    Args:
        rates: By model, by data set.
    """
    names = list(next(iter(rates.values())))
    width = min(0.8 / len(rates), 0.3)
    with new_figure(min(14.0, max(6.5, 1.8 + 0.55 * len(rates) * len(names))), 4.2) as figure:
        axes = figure.subplots()
        for number, (model, by_set) in enumerate(rates.items()):
            offset = (number - (len(rates) - 1) / 2) * width
            known = [(place, rate) for place, rate in enumerate(by_set.values()) if rate is not None]
            axes.bar(
                [place + offset for place, _ in known],
                [rate.wer for _, rate in known],
                width * 0.9,
                yerr=np.array([rate.bars for _, rate in known]).reshape(-1, 2).T,
                color=_color(number),
                error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 3},
                label=short(model, NAME_LENGTH),
            )
            for place, rate in known:
                axes.annotate(
                    f"{rate.wer:.1f}", (place + offset, rate.interval[1]), (0, 3), textcoords="offset points",
                    ha="center", fontsize=8,
                )  # fmt: skip
        axes.set_xticks(range(len(names)), [short(name, 24) for name in names])
        axes.set(title="Word error rate by data set", ylabel="WER, %", xlim=(-0.6, len(names) - 0.4))
        axes.set_ylim(bottom=0)
        axes.margins(y=0.12)
        _legend(figure, axes)
        return _render(figure)


def noise_plot(
    curves: dict[str, dict[str, Sequence[tuple[float, Rate | None]]]],
    clean: dict[str, Rate | None],
) -> bytes:
    """Draw the rate of every model as noise gets louder, a panel for each noise.

    Args:
        curves: By noise, by model: signal-to-noise ratios in dB and rates.
        clean: Rates without noise.
    """
    with new_figure(max(6.5, 5.2 * len(curves)), 4.4) as figure:
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, (noise, by_model) in zip(panels, curves.items(), strict=True):
            for number, (model, points) in enumerate(by_model.items()):
                known = [(ratio, rate) for ratio, rate in points if rate is not None]
                ratios = [ratio for ratio, _ in known]
                color, quiet = _color(number), clean[model]
                axes.plot(
                    ratios, [rate.wer for _, rate in known], "o-", color=color, markersize=4,
                    label=short(model, NAME_LENGTH),
                )  # fmt: skip
                axes.fill_between(
                    ratios, [rate.interval[0] for _, rate in known],
                    [rate.interval[1] for _, rate in known], color=color, alpha=0.15, linewidth=0,
                )  # fmt: skip
                if quiet is not None:
                    axes.axhline(quiet.wer, color=color, linestyle=":", linewidth=1)
            axes.set(title=f"{noise.capitalize()} noise", xlabel="signal-to-noise ratio, dB (louder noise →)")
            axes.set_xticks(sorted({ratio for points in by_model.values() for ratio, _ in points}))
            axes.invert_xaxis()
            axes.grid(axis="y", color=PALE, alpha=0.25)
        panels[0].set_ylim(bottom=0)  # of all panels, and only once all curves are there
        panels[0].set_ylabel("WER, % (dotted: without noise)")
        _legend(figure, panels[0])
        return _render(figure)


def checkpoint_plot(points: dict[float, Rate]) -> bytes:
    """Draw the rate of the checkpoints of one run, with intervals.

    Args:
        points: Rates by number of the checkpoint.
    """
    with new_figure(6.5, 4.4) as figure:
        axes = figure.subplots()
        steps = sorted(points)
        rates = [points[step] for step in steps]
        axes.errorbar(
            steps, [rate.wer for rate in rates], yerr=np.array([rate.bars for rate in rates]).T, fmt="o-",
            color=_color(0), markersize=4, elinewidth=1, capsize=3,
        )  # fmt: skip
        axes.set(title="Word error rate over checkpoints", xlabel="checkpoint", ylabel="WER, %")
        axes.grid(axis="y", color=PALE, alpha=0.25)
        return _render(figure)


def latency_plot(points: dict[str, tuple[float, Rate]], *, xlabel: str) -> bytes:
    """Draw the rate of every model against the time it takes.

    Args:
        points: Time and rate by model.
        xlabel: What the time is.
    """
    with new_figure(6.5, 4.4) as figure:
        axes = figure.subplots()
        for number, (model, (seconds, rate)) in enumerate(points.items()):
            axes.errorbar(
                [seconds], [rate.wer], yerr=np.array([rate.bars]).T, fmt="o", color=_color(number),
                markersize=8, ecolor=_color(number), elinewidth=1, capsize=3,
                label=short(model, NAME_LENGTH),
            )  # fmt: skip
        axes.set(title="Word error rate against time", xlabel=xlabel, ylabel="WER, %")
        axes.set_xlim(0, 1.15 * max(seconds for seconds, _ in points.values()))
        axes.set_ylim(bottom=0)
        axes.grid(color=PALE, alpha=0.25)
        _legend(figure, axes)
        return _render(figure)


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(handles)), frameon=False)


def _render(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
