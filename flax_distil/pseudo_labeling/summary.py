"""What is written beside pseudo-labels: index, summary, speed and data set card."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flax_distil.data.skipped import REMEMBERED_SAMPLES
from flax_distil.metrics.throughput import Throughput
from flax_distil.metrics.word_errors import ErrorCounts
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.dataset_card import make_card
from flax_distil.pseudo_labeling.output import CARD_NAME, SUMMARY_NAME, THROUGHPUT_NAME
from flax_distil.pseudo_labeling.shard_manifest import ShardManifest
from flax_distil.pseudo_labeling.splits import SplitName
from flax_distil.storage.resumable_output import json_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """The description of a finished data set.

    Attributes:
        summary: Counts, and skipped samples with their reasons.
        throughput: Speed over all runs that it took. Nothing else differs between two runs.
        index: The list of files.
        documents: Texts by the names of their files.
    """

    summary: dict[str, Any]
    throughput: Throughput
    index: dict[str, Any]
    documents: dict[str, str]


_FILE_KEYS = ("file", "samples", "rows", "bytes", "sha256", "audio_seconds")


def summarize(
    config: PseudoLabelConfig,
    name: str,
    splits: Sequence[SplitName],
    records: Sequence[ShardManifest],
    *,
    compile_seconds: float,
) -> LabelSummary:
    """Return the description of a finished data set.

    Args:
        config: Settings of the job.
        name: Name of the data sets.
        splits: Names of the splits; the first number of a manifest's key is an index of them.
        records: Manifests of all shards, in order.
        compile_seconds: Seconds that this run spent on compilation.
    """
    own = {split: [r for r in records if r.key[0] == number] for number, split in enumerate(splits)}
    summaries = {split: _summary(found) for split, found in own.items()}
    summary = _summary(records) | {
        "splits": {
            str(split): {"config": split.config, "split": split.split, **found}
            for split, found in summaries.items()
        }
    }
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
        {"part": str(splits[record.key[0]])}
        | {key: getattr(record, key) for key in _FILE_KEYS}
        | {"skipped": _kinds([record])}
        for record in records
    ]
    labeled = {split: found for split, found in summaries.items() if found["labelled"]}
    documents = {
        SUMMARY_NAME: json_text(summary),
        THROUGHPUT_NAME: json_text(speed),
        CARD_NAME: make_card(config, name, labeled),
    }
    return LabelSummary(summary=summary, throughput=throughput, index={"files": files}, documents=documents)


def _summary(records: Sequence[ShardManifest]) -> dict[str, Any]:
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


def _kinds(records: Sequence[ShardManifest]) -> dict[str, int]:
    """Return how many samples were skipped, by kind, the most frequent first."""
    kinds = Counter[str]()
    for record in records:
        kinds.update(sample["kind"] for sample in record.skipped["samples"])
        kinds.update(record.skipped["forgotten"])
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
