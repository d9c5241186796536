"""What is written beside pseudo-labels: index, summary, speed and data set card."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flax_distil.data.skipped import REMEMBERED_SAMPLES
from flax_distil.metrics import ErrorCounts, Throughput
from flax_distil.workflows.label_store import (
    CARD_NAME,
    DATA_NAME,
    SUMMARY_NAME,
    THROUGHPUT_NAME,
    UnitRecord,
    split_name,
)
from flax_distil.workflows.pseudo_label_config import PseudoLabelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """A finished data set.

    Attributes:
        summary: counts, and skipped samples with their reasons.
        throughput: speed over all runs it took; it alone differs from one run to the next.
        index: the files.
        documents: contents by file name.
    """

    summary: dict[str, Any]
    throughput: Throughput
    index: dict[str, Any]
    documents: dict[str, str]


def describe(
    config: PseudoLabelConfig, name: str, records: Sequence[UnitRecord], *, compile_seconds: float
) -> Description:
    """Return what there is to say.

    Args:
        config: of the run.
        name: of the data set.
        records: all units, in order.
        compile_seconds: of this run.
    """
    summary = _summary(records)
    throughput = Throughput(
        audio_seconds=summary["audio_seconds"],
        compute_seconds=sum(record.process_seconds / record.processes for record in records),
        compile_seconds=compile_seconds,
        tokens=sum(record.tokens for record in records),
        samples=summary["labelled"],
    )
    speed = {
        **dataclasses.asdict(throughput),
        "rtfx": throughput.rtfx,
        "tokens_per_second": throughput.tokens_per_second,
    }
    files = [
        {key: getattr(record, key) for key in ("file", "samples", "rows", "bytes", "sha256", "audio_seconds")}
        | {"skipped": _kinds([record])}
        for record in records
    ]
    documents = {
        SUMMARY_NAME: _json(summary),
        THROUGHPUT_NAME: _json(speed),
        CARD_NAME: _card(config, name, summary),
    }
    return Description(summary=summary, throughput=throughput, index={"files": files}, documents=documents)


def _summary(records: Sequence[UnitRecord]) -> dict[str, Any]:
    errors = sum((ErrorCounts(**record.errors) for record in records), ErrorCounts())
    listed = [sample for record in records for sample in record.skipped["samples"]][:REMEMBERED_SAMPLES]
    return {
        "samples": sum(record.samples for record in records),
        "labelled": sum(record.rows for record in records),
        "skipped": _kinds(records),
        "skipped_samples": {sample["sample_id"]: sample["reason"] for sample in listed},
        "wer": errors.wer if errors.samples else None,
        "samples_with_reference": errors.samples,
        "audio_seconds": sum(record.audio_seconds for record in records),
        "bytes": sum(record.bytes for record in records),
    }


def _kinds(records: Sequence[UnitRecord]) -> dict[str, int]:
    """Return how many samples were skipped, by kind, the most frequent first."""
    kinds = Counter[str]()
    for record in records:
        kinds.update(sample["kind"] for sample in record.skipped["samples"])
        kinds.update(record.skipped["forgotten"])
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def _card(config: PseudoLabelConfig, name: str, summary: dict[str, Any]) -> str:
    split = split_name(config.dataset_split_name)
    wer = "" if summary["wer"] is None else f"\n| WER against the references | {summary['wer']:.2f} % |"
    return f"""---
task_categories:
- automatic-speech-recognition
tags:
- pseudo-labels
- whisper
configs:
- config_name: default
  data_files:
  - split: {split}
    path: {DATA_NAME}/{split}-*.parquet
dataset_info:
  splits:
  - name: {split}
    num_bytes: {summary["bytes"]}
    num_examples: {summary["labelled"]}
  download_size: {summary["bytes"]}
  dataset_size: {summary["bytes"]}
---

# {name}, labelled by {config.model_name_or_path}

`whisper_transcript` is what the teacher heard, written by `flax-distil pseudo-label`.

| | |
|---|---|
| recordings | {summary["labelled"]:,} |
| hours | {summary["audio_seconds"] / 3600:.2f} |
| task | {config.task or "transcribe"} |
| language | {config.language or "of the teacher"} |{wer}
| skipped samples of the source | {sum(summary["skipped"].values()):,} |

`avg_logprob`, `no_speech_prob` and `compression_ratio` are the teacher's confidence in each label.
Recordings of more than 30 s were cut at silence: `source_id` and `offset_seconds` tell where from.
"""


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
