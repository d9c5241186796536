"""Figures of models on the sets of the Open ASR Leaderboard, as its tables have them."""

from collections.abc import Collection, Mapping
from typing import Any

from flax_distil.evaluation.leaderboard.sets import GROUPS, mean_rate
from flax_distil.evaluation.scores import ScoredRecords, without_nan


def leaderboard_figures(units: Mapping[str, ScoredRecords], *, in_part: Collection[str]) -> dict[str, Any]:
    """Return the figures of a model.

    Args:
        units: Scored records by set, chunks joined to whole recordings.
        in_part: Sets of which not all recordings were transcribed.

    Returns:
        ``sets``: by name ``wer`` in percent with its three counts, ``reference_words``, ``rtfx``, and the
        seconds of audio and of computing that it is made of. ``groups``: by name ``mean_wer``, the unweighted
        mean over its sets, ``rtfx`` over all of their audio and time, and ``incomplete``, the names of sets
        that are missing in the mean or were measured in part.
    """
    sets = {name: _set_figures(unit) for name, unit in units.items()}
    groups = {}
    for group, names in GROUPS.items():
        found = {name: sets[name] for name in names if name in sets}
        if found:
            audio, seconds = (
                sum(figures[key] for figures in found.values())
                for key in ("audio_seconds", "compute_seconds")
            )
            groups[group] = {
                "mean_wer": mean_rate({name: figures["wer"] for name, figures in found.items()}),
                "rtfx": audio / seconds if seconds else None,
                "incomplete": [name for name in names if name not in found or name in in_part],
            }
    return {"sets": sets, "groups": groups}


def _set_figures(unit: ScoredRecords) -> dict[str, Any]:
    errors, lines = unit.leaderboard_errors, unit.predictions
    audio = sum(line.duration for line in lines)
    seconds = sum(line.batch_seconds or 0.0 for line in lines)
    return {
        "wer": errors.wer,
        "wer_whisper": sum((counts for counts in unit.errors), start=type(errors)()).wer,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
        "reference_words": errors.reference_words,
        "samples": len(lines),
        "audio_seconds": audio,
        "compute_seconds": seconds,
    } | without_nan({"rtfx": audio / seconds if seconds else float("nan")})
