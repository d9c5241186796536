"""The card of a pseudo-labelled data set: what the Hub shows, and where ``datasets`` finds its splits."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from flax_distil.core.errors import InputError
from flax_distil.core.fields import Fields, check_fields, either, list_of, of_type, one_line
from flax_distil.core.secrets import without_secrets
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.output import DATA_NAME
from flax_distil.pseudo_labeling.splits import DEFAULT_CONFIG, SplitName

_FIELDS: Fields = {
    "configs": list_of(of_type(dict, "an object")),
    "dataset_info": either(of_type(dict, "an object"), list_of(of_type(dict, "an object"))),
}
"""Metadata of a card to which ours are added."""

_HEADING = re.compile(r"^(?=## )", re.MULTILINE)
_METADATA = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)


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
    metadata = {
        "task_categories": ["automatic-speech-recognition"],
        "tags": ["pseudo-labels", "whisper"],
        "configs": _card_configs(summaries),
        "dataset_info": _dataset_infos(summaries),
    }
    introduction = f"""# {_as_text(name)}, labelled by {_as_text(config.model.name)}

`whisper_transcript` is what the teacher heard, written by `flax-distil pseudo-label`.
`avg_logprob`, `no_speech_prob` and `compression_ratio` are the teacher's confidence in each label.
Recordings of more than 30 s were cut at silence: `source_id` and `offset_seconds` tell where from.

"""
    sections = [_section(config, split, summary) for split, summary in summaries.items()]
    return _format_card(metadata, introduction + "\n".join(sections))


def merge_cards(theirs: str | None, ours: str) -> str:
    """Add the splits of a card to the card of a repository, where other splits may be.

    Args:
        theirs: Card of the repository; None if there is none.
        ours: Card of :func:`make_card`.

    Returns:
        Their card with our splits and sections added, or in the place of those of the same name.

    Raises:
        InputError: If the metadata of their card are not YAML, or not those of a data set.
    """
    if theirs is None:
        return ours
    (own, text), (there, their_text) = _parse_card(ours), _parse_card(theirs)
    check_fields(there, _FIELDS, name="the card of the repository")
    metadata = {**own, **there}
    for name in ("task_categories", "tags"):
        known = [tag for tag in _as_list(there.get(name)) if isinstance(tag, str)]
        metadata[name] = list(dict.fromkeys([*known, *own[name]]))
    metadata["configs"] = _merge_configs(_as_list(there.get("configs")), own["configs"])
    infos = _merge_infos(_as_list(there.get("dataset_info")), _as_list(own["dataset_info"]))
    metadata["dataset_info"] = infos if len(infos) > 1 else infos[0]
    (_, *added), (introduction, *kept) = _HEADING.split(text), _HEADING.split(their_text)
    sections = {_title(section): section.rstrip() + "\n" for section in (*kept, *added)}
    start = introduction.rstrip() or _HEADING.split(text)[0].rstrip()
    return _format_card(metadata, "\n".join([start + "\n", *sections.values()]))


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
    infos = [_dataset_info(name, splits) for name, splits in found.items()]
    return infos if len(infos) > 1 else infos[0]


def _dataset_info(config: str, splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sizes = [split.get("num_bytes", 0) for split in splits]
    size = sum(size for size in sizes if isinstance(size, int))
    named = {} if config == DEFAULT_CONFIG else {"config_name": config}
    return {**named, "splits": [*splits], "download_size": size, "dataset_size": size}


def _section(config: PseudoLabelConfig, split: SplitName, summary: Mapping[str, Any]) -> str:
    wer = "" if summary["wer"] is None else f"\n| WER against the references | {summary['wer']:.2f} % |"
    return f"""## {split}

| | |
|---|---|
| teacher | {_as_text(config.model.name)} |
| recordings | {summary["labelled"]:,} |
| hours | {summary["audio_seconds"] / 3600:.2f} |
| task | {config.decoding.task or "transcribe"} |
| language | {config.decoding.language or "of the teacher"} |{wer}
| skipped samples of the source | {sum(summary["skipped"].values()):,} |
"""


def _merge_configs(theirs: Sequence[Any], ours: Sequence[Any]) -> list[dict[str, Any]]:
    merged = {str(config.get("config_name", DEFAULT_CONFIG)): dict(config) for config in theirs}
    for config in ours:
        there = merged.setdefault(config["config_name"], dict(config))
        files = [*_data_files(there), *config["data_files"]]
        there["data_files"] = list({str(file.get("split", "train")): file for file in files}.values())
    return list(merged.values())


def _data_files(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files of a configuration by split, in whatever form its card names them."""
    files = config.get("data_files") or []
    if isinstance(files, list) and all(isinstance(entry, dict) for entry in files):
        return files
    return [{"split": "train", "path": files}]


def _merge_infos(theirs: Sequence[Any], ours: Sequence[Any]) -> list[dict[str, Any]]:
    merged = {str(info.get("config_name", DEFAULT_CONFIG)): dict(info) for info in theirs}
    for info in ours:
        name = info.get("config_name", DEFAULT_CONFIG)
        there = merged.get(name, {})
        own = {split["name"] for split in info["splits"]}
        known = [split for split in _as_list(there.get("splits")) if isinstance(split, dict)]
        others = [split for split in known if str(split.get("name")) not in own]
        kept = there if others else {}
        merged[name] = {**kept, **_dataset_info(name, [*others, *info["splits"]])}
    if len(merged) > 1:
        return [{"config_name": name, **info} for name, info in merged.items()]
    return list(merged.values())


def _parse_card(card: str) -> tuple[dict[str, Any], str]:
    found = _METADATA.match(card)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise InputError(f"the card of the repository has metadata that are not YAML ({reason})") from error
    return (metadata if isinstance(metadata, dict) else {}), card[found.end() if found else 0 :]


def _format_card(metadata: Mapping[str, Any], text: str) -> str:
    head = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{text.lstrip()}"


def _as_text(name: str) -> str:
    """Return a name in one line, with nothing in it that Markdown or HTML would take for markup."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", " ".join(without_secrets(name).split()))


def _title(section: str) -> str:
    return section.partition("\n")[0].strip()


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
