"""The small files of an export: those of the checkpoint, with settings that match what is written."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from flax_distil.checkpoints.alignment_heads import valid_alignment_heads
from flax_distil.checkpoints.formats.files import CheckpointFiles, preprocessor_window
from flax_distil.checkpoints.tokenizer import has_tokenizer, read_tokenizer
from flax_distil.core.fields import Fields, check_fields, either, list_of, object_with, of_type
from flax_distil.core.json_files import parse_json
from flax_distil.model.config import WhisperConfig

_TEXT = of_type(str, "text")
_TOKENIZER_FIELDS: Fields = {
    "model": object_with(
        {"vocab": of_type(dict, "an object"), "merges": list_of(either(_TEXT, list_of(_TEXT, length=2)))}
    )
}
"""Fields of a ``tokenizer.json`` that are also written into separate files."""

# These keys describe how the file was made, or belong to generation_config.json; an export must not keep
# them.
_DROPPED_CONFIG_KEYS = (
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "forced_decoder_ids",
    "max_length",
)

_GENERATION_KEYS = ("is_multilingual", "no_timestamps_token_id", "decoder_start_token_id")
"""Keys without which transformers calls a generation config outdated."""

_CODE_KEYS = ("auto_map", "custom_pipelines")
"""Keys of any of the files that name code of a repository, which transformers would offer to run."""


def exported_files(files: CheckpointFiles, config: WhisperConfig, dtype: np.dtype) -> CheckpointFiles:
    """Return the small files of a checkpoint with settings that match the model that is written.

    Args:
        files: Files of the checkpoint.
        config: Architecture that is written.
        dtype: Element type of the weights that are written.

    Returns:
        The files without names of code, without alignment heads that the model lacks, and with
        ``vocab.json`` and ``merges.txt`` beside ``tokenizer.json``.
    """
    kept = {
        key: value for key, value in _without_code(files.config).items() if key not in _DROPPED_CONFIG_KEYS
    }
    document = {
        **kept,
        **config.to_huggingface(),
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "tie_word_embeddings": True,
        "dtype": dtype.name,
        # Suppressed tokens are in generation_config.json; transformers would assume its defaults if they were
        # absent.
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    return dataclasses.replace(
        files,
        config=document,
        generation_config=_generation_config(files, config),
        tokenizer_config=_without_code(files.tokenizer_config),
        preprocessor_config={
            **_without_code(files.preprocessor_config),
            **preprocessor_window(config.max_source_positions),
            "feature_size": config.num_mel_bins,
        },
        tokenizer=_with_vocabulary_files(files.tokenizer),
    )


def _generation_config(files: CheckpointFiles, config: WhisperConfig) -> dict[str, Any]:
    """Return generation settings that fit the model, in the form that transformers 5 has no warning for.

    Old files name language and task by ``forced_decoder_ids``, and lack what a ``language`` needs.
    """
    found = _without_code(valid_alignment_heads(files.generation_config, config))
    forced = found.pop("forced_decoder_ids", None)
    if has_tokenizer(files) and (forced or any(found.get(key) is None for key in _GENERATION_KEYS)):
        tokenizer, settings = read_tokenizer(files)
        complete = settings.to_dict(tokenizer.special)
        lacking = {key: value for key, value in complete.items() if found.get(key) is None and value != []}
        found |= {key: value for key, value in lacking.items() if key != "alignment_heads"}
    if found.get("max_length") is not None:
        found["max_length"] = min(found["max_length"], config.max_target_positions)
    return found


def _without_code(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _CODE_KEYS}


def _with_vocabulary_files(tokenizer: Mapping[str, bytes]) -> dict[str, bytes]:
    """Add ``vocab.json`` and ``merges.txt``, which transformers before version 5 and whisper.cpp read."""
    if "tokenizer.json" not in tokenizer or "vocab.json" in tokenizer:
        return dict(tokenizer)
    document = parse_json(tokenizer["tokenizer.json"], name="tokenizer.json")
    check_fields(document, _TOKENIZER_FIELDS, name="tokenizer.json", required=("model",))
    model = document["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return {
        **tokenizer,
        "vocab.json": json.dumps(model["vocab"], ensure_ascii=False).encode(),
        "merges.txt": ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(),
    }
