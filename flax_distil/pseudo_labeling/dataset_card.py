"""The card of a pseudo-labelled data set: what the Hub shows, and where ``datasets`` finds its splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from flax_distil.checkpoints.hub.cards import (
    as_text,
    data_set_license,
    hub_id,
    iso_language,
    linked,
    markdown_table,
    plain_text,
    short_name,
)
from flax_distil.data.sources.dataset_spec import split_names
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.output import DATA_NAME
from flax_distil.pseudo_labeling.splits import DEFAULT_CONFIG, SplitName

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
"""Size categories of the Hub below a number of rows."""

_COLUMNS = (
    ("whisper_transcript", "what the teacher transcribed, with timestamps if they were asked for"),
    ("avg_logprob", "mean log-probability of the tokens of the label"),
    ("no_speech_prob", "probability that the teacher gives to there being no speech"),
    ("compression_ratio", "length of the label over that of its zlib compression; high for repetitions"),
    ("wer", "word error rate of the label against the reference in percent, if there is a reference"),
    ("duration", "seconds of the recording"),
    (
        "id, source_id, offset_seconds",
        "name of the row, and where in which recording of the source it begins",
    ),
)
"""Columns beside those of the source, and what they hold."""


def data_pattern(split: SplitName) -> str:
    """Return the pattern of the files of a split."""
    return f"{DATA_NAME}/{split}-*.parquet"


def make_card(config: PseudoLabelConfig, name: str, summaries: Mapping[SplitName, Mapping[str, Any]]) -> str:
    """Return the card of a pseudo-labeled data set.

    Args:
        config: Settings of the job.
        name: Name of the data sets.
        summaries: Counts of each split that has rows.
    """
    sources = [found for source in split_names(config.data.dataset_name) if (found := hub_id(source))]
    licenses = [data_set_license(source) for source in split_names(config.data.dataset_name)]
    license = licenses[0] if len(set(licenses)) == 1 else None
    metadata = {
        "pretty_name": plain_text(f"{name}, labelled by {short_name(config.model.name)}"),
        **({"license": license} if license else {}),
        **({"language": [code]} if (code := iso_language(config.decoding.language)) else {}),
        "task_categories": ["automatic-speech-recognition"],
        "annotations_creators": ["machine-generated"],
        **({"source_datasets": sources} if sources else {}),
        "size_categories": [size_category(sum(found["labelled"] for found in summaries.values()))],
        "tags": ["pseudo-labels", "whisper", "flax-distil"],
        "configs": _card_configs(summaries),
        "dataset_info": _dataset_infos(summaries),
    }
    sections = [_section(config, split, summary) for split, summary in summaries.items()]
    return format_card(metadata, _introduction(config, name, licenses) + "\n".join(sections))


def size_category(rows: int) -> str:
    """Return the size category of the Hub for a number of rows."""
    return next((category for bound, category in _SIZES if rows < bound), "n>10M")


def _introduction(config: PseudoLabelConfig, name: str, licenses: Sequence[str | None]) -> str:
    sources = [
        f"{linked(source, repo_type='dataset')} (license: {as_text(license or 'not stated')})"
        for source, license in zip(split_names(config.data.dataset_name), licenses, strict=True)
    ]
    columns = markdown_table(["column", "contents"], [[f"`{names}`", text] for names, text in _COLUMNS])
    return f"""# {as_text(name)}, labelled by {linked(config.model.name)}

Recordings of {", ".join(sources)} with the transcripts of a Whisper model as labels, made by
`flax-distil pseudo-label`. Recordings of more than 30 s were cut at silence. No row was left out for its word
error rate: training does that (`flax-distil distil --wer_threshold`), where there are references.

Whoever uses the labels is bound by the license of the recordings.

{columns}
"""


def _card_configs(splits: Mapping[SplitName, Any]) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, str]]] = {}
    for split in splits:
        found.setdefault(split.config, []).append({"split": split.split, "path": data_pattern(split)})
    return [{"config_name": name, "data_files": files} for name, files in found.items()]


def _dataset_infos(summaries: Mapping[SplitName, Mapping[str, Any]]) -> Any:
    """Return sizes: a list of configurations, or the only one."""
    found: dict[str, list[dict[str, Any]]] = {}
    for split, summary in summaries.items():
        size = {"name": split.split, "num_bytes": summary["bytes"], "num_examples": summary["labelled"]}
        found.setdefault(split.config, []).append(size)
    infos = [dataset_info(name, splits) for name, splits in found.items()]
    return infos if len(infos) > 1 else infos[0]


def dataset_info(config: str, splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sizes of the splits of a configuration, as ``datasets`` reads them."""
    sizes = [split.get("num_bytes", 0) for split in splits]
    size = sum(size for size in sizes if isinstance(size, int))
    named = {} if config == DEFAULT_CONFIG else {"config_name": config}
    return {**named, "splits": [*splits], "download_size": size, "dataset_size": size}


def _section(config: PseudoLabelConfig, split: SplitName, summary: Mapping[str, Any]) -> str:
    decoding, durations = config.decoding, config.durations
    rows = [
        ("teacher", linked(config.model.name)),
        ("revision of the teacher", as_text(config.model.model_revision or "")),
        ("recordings", f"{summary['labelled']:,}"),
        ("hours", f"{summary['audio_seconds'] / 3600:.2f}"),
        ("task", str(decoding.task or "transcribe")),
        ("language", str(decoding.language or "of the teacher")),
        ("labels with timestamps", "yes" if decoding.return_timestamps else "no"),
        ("beams", str(decoding.search.num_beams) if decoding.search.num_beams > 1 else ""),
        (
            "recordings left out that are not longer than",
            f"{durations.min_duration_in_seconds:g} s" if durations.min_duration_in_seconds else "",
        ),
        (
            "recordings left out that are longer than",
            f"{durations.longest:g} s" if durations.max_duration_in_seconds is not None else "",
        ),
        ("WER against the references", "" if summary["wer"] is None else f"{summary['wer']:.2f} %"),
        ("skipped samples of the source", _skipped(summary["skipped"])),
    ]
    table = markdown_table(["", ""], [[label, value] for label, value in rows if value])
    return f"## {split}\n\n{table}"


def _skipped(kinds: Mapping[str, int]) -> str:
    listed = ", ".join(f"{count:,} {as_text(kind)}" for kind, count in kinds.items())
    return f"{sum(kinds.values()):,}{f' ({listed})' if listed else ''}"


def format_card(metadata: Mapping[str, Any], text: str) -> str:
    """Return a card with its metadata in front."""
    head = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{text.lstrip()}"
