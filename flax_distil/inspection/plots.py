"""Pictures of training data: counts in one, samples with their tokens in another."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from flax_distil.audio.constants import CHUNK_SECONDS
from flax_distil.audio.mel import log_mel
from flax_distil.core.arrays import Float
from flax_distil.core.fields import one_line
from flax_distil.core.plotting import INK, PALE, new_figure, say, short
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.preprocessing.statistics import DatasetStatistics, merge_statistics
from flax_distil.inspection.token_text import visible
from flax_distil.inspection.token_view import TokenView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = 12
"""Most bars of the pictures of speakers and drops."""

TOKENS_WIDTH = 136
"""Characters of a line of tokens."""

ROLE_COLORS = {
    "prompt": "#c9a6c4",
    "sot": "#86bcb6",
    "language": "#9ecae9",
    "task": "#9ecae9",
    "timestamp": "#ffbf79",
    "text": "#a5d69b",
    "eot": "#86bcb6",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownSample:
    """A sample as a step of training gets it.

    Attributes:
        sample_id: Name of its first row.
        data_set: Its data set.
        seconds: Seconds of audio; silence follows up to 30 s.
        samples_W: Samples as float32, 16 kHz, padded to 30 s.
        tokens: The decoder's sequence.
    """

    sample_id: str
    data_set: str
    seconds: float
    samples_W: Float[np.ndarray, " W"]
    tokens: list[TokenView]

    @property
    def title(self) -> str:
        """One line that names it."""
        learned = sum(token.learned for token in self.tokens)
        return (
            f"{self.sample_id} ({self.data_set}): {self.seconds:.2f} s, "
            f"{len(self.tokens)} tokens, {learned} learned"
        )


def draw_statistics(data_sets: Sequence[DatasetStatistics], dropped: DropReport, path: Path) -> None:
    """Draw durations, label lengths, speakers and drops of all data sets in one picture.

    Args:
        data_sets: One per data set.
        dropped: What the filters saw.
        path: A PNG file to write.
    """
    total = merge_statistics(data_sets)
    with new_figure(13.0, 8.5) as figure:
        ((durations, labels), (speakers, drops)) = figure.subplots(2, 2)
        longest = max(total.sample_seconds, default=1.0)
        bins = np.linspace(0, CHUNK_SECONDS if longest > 10 else np.ceil(longest), 61)
        _histogram(
            durations, data_sets, [data_set.sample_seconds for data_set in data_sets], bins, "{:.1f} s"
        )
        durations.set(title="Durations", xlabel="seconds of a sample", ylabel="samples")
        most = max(total.label_lengths, default=1)
        width = -(-most // 60)  # whole tokens, or bars would stand for unequally many
        bins_of_labels = np.arange(0, most + width + 1, width) - 0.5
        _histogram(
            labels,
            data_sets,
            [data_set.label_lengths for data_set in data_sets],
            bins_of_labels,
            "{:.0f} tokens",
        )
        labels.set(title="Label lengths", xlabel="tokens of a label, without previous text", ylabel="samples")
        _draw_speakers(speakers, total)
        _draw_drops(drops, dropped)
        names = " + ".join(data_set.name for data_set in data_sets)
        beginning = "" if total.complete else " (the beginning of a stream)"
        figure.suptitle(
            f"{names}: {total.hours:,.2f} hours in {len(total.row_seconds):,} rows{beginning}, "
            f"{len(total.sample_seconds):,} samples, {total.fill:.1%} of their 30 s filled",
            fontsize=13,
            fontweight="bold",
        )
        figure.savefig(path)


def draw_samples(samples: Sequence[ShownSample], *, num_mel_bins: int, path: Path) -> None:
    """Draw waveform, log-mel spectrogram and tokens of each sample, one below the other.

    Args:
        samples: At least one.
        num_mel_bins: Of the model.
        path: A PNG file to write.
    """
    strips = [_lay_out(sample.tokens) for sample in samples]
    lines = [max(line for _, _, line in strip) + 1 for strip in strips]
    heights = [height for count in lines for height in (0.8, 1.6, 0.3 * count)]
    with new_figure(14.0, sum(heights) + 1.15 * len(samples) + 0.5) as figure:
        axes = figure.subplots(3 * len(samples), 1, gridspec_kw={"height_ratios": heights})
        for number, sample in enumerate(samples):
            waveform, spectrogram, strip = axes[3 * number : 3 * number + 3]
            _draw_waveform(waveform, sample)
            _draw_spectrogram(spectrogram, sample, num_mel_bins)
            _draw_tokens(strip, strips[number], lines[number])
        _draw_legend(figure)
        figure.savefig(path)


def _histogram(
    axes: "Axes",
    data_sets: Sequence[DatasetStatistics],
    values: Sequence[Sequence[float] | Sequence[int]],
    bins: np.ndarray,
    unit: str,
) -> None:
    """Draw a histogram, data sets above each other, with median and 95th percentile of all."""
    from matplotlib.ticker import MaxNLocator

    every = [value for part in values for value in part]
    axes.hist(values, bins=bins.tolist(), stacked=True, label=[data_set.name for data_set in data_sets])
    if every:
        median, high = np.percentile(every, [50, 95]).tolist()
        for value, name, style in ((median, "median", "-"), (high, "95 %", ":")):
            axes.axvline(
                value, color=INK, linestyle=style, linewidth=1.2, label=f"{name} {unit.format(value)}"
            )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(edgecolor="none", framealpha=1)


def _draw_speakers(axes: "Axes", total: DatasetStatistics) -> None:
    found = total.speakers(BARS)
    axes.set(title=f"Hours per speaker, {len(found)} of {len(total.speaker_seconds):,}", xlabel="hours")
    if not found:
        axes.set(title="Hours per speaker", xlabel="")
        say(axes, "no column tells speakers apart")
        return
    names = [short(name, 22) for name, _ in found]
    axes.barh(range(len(found)), [hours for _, hours in found], color="tab:blue")
    axes.set_yticks(range(len(found)), names)
    axes.invert_yaxis()


def _draw_drops(axes: "Axes", dropped: DropReport) -> None:
    found = [
        (f"{short(name, 22)}\n{reason}", count["rows"])
        for name, counts in dropped.get_state().items()
        for reason, count in counts.items()
        if reason != "kept"
    ]
    found = sorted(found, key=lambda item: -item[1])[:BARS]
    rows = sum(count["rows"] for counts in dropped.get_state().values() for count in counts.values())
    axes.set(title="Rows dropped by the filters", xlabel="rows")
    if not found:
        axes.set(xlabel="")
        say(axes, f"none of {rows:,}")
        return
    bars = axes.barh(range(len(found)), [count for _, count in found], color="tab:red", alpha=0.8)
    axes.bar_label(bars, [f" {count:,} ({count / rows:.1%})" for _, count in found])
    axes.margins(x=0.3)
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    axes.invert_yaxis()


def _draw_waveform(axes: "Axes", sample: ShownSample) -> None:
    times = np.linspace(0, CHUNK_SECONDS, 1500, endpoint=False)
    blocks = sample.samples_W.reshape(1500, -1)
    axes.fill_between(times, blocks.min(axis=1), blocks.max(axis=1), color="tab:blue", linewidth=0.4)
    _mark_times(axes, sample)
    axes.set(xlim=(0, CHUNK_SECONDS), ylim=(-1, 1), xticks=[], yticks=[-1, 0, 1])
    axes.set_title(short(one_line(sample.title), 100))


def _draw_spectrogram(axes: "Axes", sample: ShownSample, num_mel_bins: int) -> None:
    features = np.asarray(log_mel(jnp.asarray(sample.samples_W[None]), num_mel_bins=num_mel_bins))[0]
    axes.imshow(
        features.T, aspect="auto", origin="lower", cmap="magma", extent=(0, CHUNK_SECONDS, 0, num_mel_bins)
    )
    _mark_times(axes, sample)
    axes.set(xlim=(0, CHUNK_SECONDS), ylabel="mel bin", yticks=[0, num_mel_bins])
    axes.xaxis.set_major_formatter("{x:.0f} s")


def _mark_times(axes: "Axes", sample: ShownSample) -> None:
    """Draw where the audio ends, and every timestamp of the label."""
    axes.axvline(sample.seconds, color=PALE, linestyle="--", linewidth=1)
    for token in sample.tokens:
        if token.seconds is not None:
            axes.axvline(token.seconds, color="#ff8c00", linewidth=1)


def _lay_out(tokens: Sequence[TokenView]) -> list[tuple[TokenView, int, int]]:
    """Return each token with the character and the line where it begins."""
    places, start, line = [], 0, 0
    for token in tokens:
        length = len(visible(token.text)) + 1
        if start and start + length > TOKENS_WIDTH:
            start, line = 0, line + 1
        places.append((token, start, line))
        start += length
    return places


def _draw_tokens(axes: "Axes", places: Sequence[tuple[TokenView, int, int]], lines: int) -> None:
    from matplotlib.patches import Rectangle

    for token, start, line in places:
        text, color = visible(token.text), ROLE_COLORS[token.role]
        axes.add_patch(
            Rectangle(
                (start + 0.1, line + 0.1), len(text) + 0.8, 0.8, edgecolor=color, linewidth=1,
                facecolor=color if token.learned else "white", linestyle="-" if token.learned else ":",
            )
        )  # fmt: skip
        axes.text(
            start + 0.5 + len(text) / 2, line + 0.52, text, ha="center", va="center", family="monospace",
            fontsize=8.5, color=INK if token.learned else PALE, parse_math=False,
        )  # fmt: skip
    axes.set(xlim=(0, TOKENS_WIDTH), ylim=(lines, 0))
    axes.set_axis_off()


def _draw_legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = []
    for color in dict.fromkeys(ROLE_COLORS.values()):
        roles = [role for role, other in ROLE_COLORS.items() if other == color]
        handles.append(Patch(color=color, label=", ".join(roles)))
    handles += [
        Patch(facecolor="white", edgecolor=PALE, linestyle=":", label="given, not learned"),
        Line2D([], [], color=PALE, linestyle="--", label="end of the audio"),
        Line2D([], [], color="#ff8c00", label="timestamp of the label"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
