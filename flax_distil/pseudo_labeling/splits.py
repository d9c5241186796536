"""What a labelling run reads: each split of each data set, which stay apart in the new one."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.naming import distinct_names
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_datasets
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.data.training.training_data import group_by_speaker
from flax_distil.pseudo_labeling.columns import label_features
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.shard_plan import SplitShardPlan, StreamShardPlan, TableShardPlan

if TYPE_CHECKING:
    import datasets

DEFAULT_CONFIG = "default"
DEFAULT_SPLIT = "train"
DEFAULT_TEXT_COLUMN = "text"

_LONGEST_NAME = 160
"""Maximum number of bytes of a name in the names of files, which have at most 255."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitName:
    """Name of a split in the new data set.

    Attributes:
        config: Name of the configuration.
        split: Name of the split in the configuration.
    """

    config: str = DEFAULT_CONFIG
    split: str = DEFAULT_SPLIT

    def __str__(self) -> str:
        """Return ``train``, or ``en/train`` in a configuration of a name."""
        return self.split if self.config == DEFAULT_CONFIG else f"{self.config}/{self.split}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSplit:
    """A split of a data set, opened.

    Attributes:
        name: Name in the new data set.
        source: Rows of the split.
        plan: The same rows in shards.
        text_column: Column of reference texts; None if there is none.
        speaker_column: Column of speakers; None if there is none.
        features: Columns of the Parquet files.
        rows: Number of files or rows, with a digest of their names and sizes.
    """

    name: SplitName
    source: SpeechDataset | IterableSpeechDataset
    plan: SplitShardPlan
    text_column: str | None
    speaker_column: str | None
    features: "datasets.Features"
    rows: str


def open_splits(config: PseudoLabelConfig) -> list[LabelSplit]:
    """Open every split of every data set, in the order of the command, without reading audio.

    Splits of a data set that are joined by ``+`` stay apart; slices of one split are one split. A single data
    set keeps the configuration of its source, or ``default``; several become a configuration each.

    Raises:
        InputError: If a data set, split or column does not exist, a split is named twice, or splits of one
            data set have different columns.
    """
    opened = {key: _open(config, spec) for key, spec in _requested_specs(config).items()}
    names = _config_names({key[:2]: source.name for key, source in opened.items()})
    parts = [
        _part(config, SplitName(config=names[key[:2]], split=key[2]), source)
        for key, source in opened.items()
    ]
    first: dict[str, LabelSplit] = {}
    for part in parts:
        _check_columns(first.setdefault(part.name.config, part), part)
    return parts


_SplitKey = tuple[str, str | None, str]
"""Data set, configuration and split, as the source calls them."""


def _requested_specs(config: PseudoLabelConfig) -> dict[_SplitKey, DatasetSpec]:
    """Return how each split is opened."""
    parts: dict[_SplitKey, DatasetSpec] = {}
    for spec in config.data.spec.parts():
        for split, expression in _splits(spec.split).items():
            key = (spec.name, spec.config_name, split)
            if key in parts:
                raise InputError(
                    f"split {split!r} of data set {spec.name!r} is named twice in "
                    f"{config.data.dataset_name!r}: name each split of a data set once"
                )
            parts[key] = dataclasses.replace(
                spec, split=expression, speaker_column=config.speakers.speaker_column_name
            )
    return parts


def _check_columns(first: LabelSplit, part: LabelSplit) -> None:
    for column in {**first.features, **part.features}:
        if first.features.get(column) != part.features.get(column):
            raise InputError(
                f"splits {first.name} and {part.name} of data set {part.source.name!r} differ in column "
                f"{column!r}: label them into different folders"
            )


def _open(config: PseudoLabelConfig, spec: DatasetSpec) -> SpeechDataset | IterableSpeechDataset:
    (source,) = load_datasets(spec)
    first = source.first_rows() if isinstance(source, IterableSpeechDataset) else source
    if source.text_column is None and first.has_column(DEFAULT_TEXT_COLUMN):
        source = dataclasses.replace(source, text_column=DEFAULT_TEXT_COLUMN)
    if isinstance(source, IterableSpeechDataset):
        return dataclasses.replace(source, id_column=config.id_column_name)
    if config.id_column_name is not None:
        source = source.rename_rows(config.id_column_name)
    return group_by_speaker(source) if config.speakers.sort_by_speaker else source


def _part(
    config: PseudoLabelConfig, name: SplitName, source: SpeechDataset | IterableSpeechDataset
) -> LabelSplit:
    plan: SplitShardPlan
    if isinstance(source, IterableSpeechDataset):
        plan = StreamShardPlan(source, samples_per_shard=config.samples_per_shard)
        first, rows = source.first_rows(), [shard.name for shard in source.shards]
    else:
        plan = TableShardPlan(source, samples_per_shard=config.samples_per_shard)
        first, rows = source, [f"{id} {size}" for id, size in zip(source.ids(), plan.sizes, strict=True)]
    return LabelSplit(
        name=name,
        source=source,
        plan=plan,
        text_column=source.text_column,
        speaker_column=first.speaker_column,
        features=label_features(first),
        rows=f"{len(rows)} parts, {_digest(rows)}",
    )


def _config_names(sets: Mapping[tuple[str, str | None], str]) -> dict[tuple[str, str | None], str]:
    """Return what the configuration of each data set is called in the new one.

    Args:
        sets: Short names by name and configuration of the source.
    """
    if len(sets) == 1:
        return {key: _plain(key[1]) or DEFAULT_CONFIG for key in sets}
    short = list(sets.values())
    called = [config if config and short.count(name) > 1 else name for (_, config), name in sets.items()]
    return dict(zip(sets, distinct_names([_plain(name) or DEFAULT_CONFIG for name in called]), strict=True))


def _splits(split: str | None) -> dict[str, str | None]:
    """Return the expression of each split: ``test[:9]+train`` is ``test[:9]`` of ``test``, and ``train``."""
    if split is None:
        return {DEFAULT_SPLIT: None}
    found: dict[str, list[str]] = {}
    for part in map(str.strip, split.split("+")):
        found.setdefault(_plain(part.partition("[")[0]) or DEFAULT_SPLIT, []).append(part)
    return {name: "+".join(parts) for name, parts in found.items()}


def _plain(name: str | None) -> str:
    """Return the name with nothing in it that names of files, splits or configurations cannot have."""
    plain = re.sub(r"[^\w.]+", "_", name or "").strip("._")
    if len(os.fsencode(plain)) <= _LONGEST_NAME:
        return plain
    return f"{plain[: _LONGEST_NAME // 8]}_{hashlib.sha256(plain.encode()).hexdigest()[:16]}"


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
