"""Manifests of the Open ASR Leaderboard: a line of JSON for every recording, with raw texts."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax_distil.core.files import user_path
from flax_distil.evaluation.leaderboard.open_sets import CHUNK_COLUMN, PARENT_COLUMN
from flax_distil.evaluation.records import Prediction, Record, Records
from flax_distil.evaluation.streams import EvaluationSet, EvaluationStream


def model_id(name: str, label: str) -> str:
    """Return what the leaderboard's files call a model: a Hub id with a hyphen for the slash.

    Args:
        name: Folder or Hub id.
        label: What reports call it.
    """
    return f"local-{label}" if os.path.exists(user_path(name)) else name.replace("/", "-")


def chunks_of(data: EvaluationSet) -> list[tuple[str, int]] | None:
    """Return which part of which recording each row is; None where rows are whole recordings."""
    if isinstance(data, EvaluationStream):  # sets of chunks are tables
        return None
    if not data.has_column(PARENT_COLUMN) or not data.has_column(CHUNK_COLUMN):
        return None
    numbers = map(int, data.column(CHUNK_COLUMN))
    return list(zip(map(str, data.column(PARENT_COLUMN)), numbers, strict=True))


def join_chunks(records: Records, chunks: Sequence[tuple[str, int]]) -> Records:
    """Return records whose predictions are of whole recordings: their chunks' texts with spaces between."""
    others: list[Record] = [line for line in records.lines if not isinstance(line, Prediction)]
    by_recording: dict[str, list[Prediction]] = {}
    for line in sorted(records.predictions, key=lambda line: chunks[line.index]):
        by_recording.setdefault(chunks[line.index][0], []).append(line)
    return Records([*others, *(_joined(name, parts) for name, parts in by_recording.items())])


def _joined(name: str, parts: Sequence[Prediction]) -> Prediction:
    latest = max(parts, key=lambda line: (line.session, line.seconds))
    texts = [line.text.strip() for line in parts]
    tokens = sum(line.tokens for line in parts)
    return dataclasses.replace(
        latest,
        index=parts[0].index,
        id=name,
        text=" ".join(filter(None, texts)),
        duration=sum(line.duration for line in parts),
        tokens=tokens,
        avg_logprob=sum(line.avg_logprob * line.tokens for line in parts) / max(1, tokens),
        batch_seconds=sum(line.batch_seconds or 0.0 for line in parts),
    )


def manifest_lines(records: Records, data: EvaluationSet) -> list[str]:
    """Return the lines of a manifest: one for every recording or chunk, in the order of the set.

    Source: ``write_manifest`` of https://github.com/huggingface/open_asr_leaderboard.
    """
    chunks = chunks_of(data)
    lines = []
    for prediction in records.predictions:
        entry: dict[str, Any] = {
            "audio_filepath": os.path.basename(prediction.id),
            "duration": prediction.duration,
            "time": prediction.batch_seconds,
            "text": prediction.reference,
            "pred_text": prediction.text,
        }
        if chunks is not None:
            entry[PARENT_COLUMN], entry[CHUNK_COLUMN] = chunks[prediction.index]
        lines.append(json.dumps(entry, ensure_ascii=False))
    return lines


def write_manifests(manifests: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Write the lines of manifests by the names of their files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in manifests.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
