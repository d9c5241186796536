"""Add the splits of an upload to the card of a repository that has others."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from flax_distil.checkpoints.hub.cards import split_card
from flax_distil.core.errors import InputError
from flax_distil.core.fields import Fields, check_fields, either, list_of, of_type, one_line
from flax_distil.pseudo_labeling.dataset_card import dataset_info, format_card, size_category
from flax_distil.pseudo_labeling.splits import DEFAULT_CONFIG

_FIELDS: Fields = {
    "configs": list_of(of_type(dict, "an object")),
    "dataset_info": either(of_type(dict, "an object"), list_of(of_type(dict, "an object"))),
}
"""Metadata of a card to which ours are added."""

_LISTS = ("task_categories", "tags", "language", "annotations_creators", "source_datasets")
"""Metadata that are lists of words, of which a card has those of all uploads."""

_HEADING = re.compile(r"^(?=## )", re.MULTILINE)


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
    for name in _LISTS:
        known = [word for word in _as_list(there.get(name)) if isinstance(word, str)]
        if words := list(dict.fromkeys([*known, *own.get(name, ())])):
            metadata[name] = words
    metadata["configs"] = _merge_configs(_as_list(there.get("configs")), own["configs"])
    infos = _merge_infos(_as_list(there.get("dataset_info")), _as_list(own["dataset_info"]))
    metadata["size_categories"] = [size_category(sum(map(_rows, infos)))]
    metadata["dataset_info"] = infos if len(infos) > 1 else infos[0]
    (_, *added), (introduction, *kept) = _HEADING.split(text), _HEADING.split(their_text)
    sections = {_title(section): section.rstrip() + "\n" for section in (*kept, *added)}
    start = introduction.rstrip() or _HEADING.split(text)[0].rstrip()
    return format_card(metadata, "\n".join([start + "\n", *sections.values()]))


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
        merged[name] = {**kept, **dataset_info(name, [*others, *info["splits"]])}
    if len(merged) > 1:
        return [{"config_name": name, **info} for name, info in merged.items()]
    return list(merged.values())


def _parse_card(card: str) -> tuple[dict[str, Any], str]:
    head, text = split_card(card)
    try:
        metadata = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise InputError(f"the card of the repository has metadata that are not YAML ({reason})") from error
    return (metadata if isinstance(metadata, dict) else {}), text


def _title(section: str) -> str:
    return section.partition("\n")[0].strip()


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _rows(info: Mapping[str, Any]) -> int:
    counts = [split.get("num_examples") for split in _as_list(info.get("splits")) if isinstance(split, dict)]
    return sum(count for count in counts if isinstance(count, int))
