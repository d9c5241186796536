"""Convert the small files of a CTranslate2 folder to those of a Hugging Face folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.formats.files import (
    SPECIAL_IDS,
    CheckpointFiles,
    read_preprocessor,
    read_small_file,
)
from flax_distil.core.errors import InputError
from flax_distil.core.fields import Fields, check_fields, list_of, object_with, of_type, whole_number
from flax_distil.core.json_files import read_json
from flax_distil.model.config import WhisperConfig

_ID = whole_number(0, 2**31 - 1)
_ADDED_TOKEN = object_with(
    {"id": _ID, "content": of_type(str, "text"), "special": of_type(bool, "true or false")}
)
_TOKENIZER_FIELDS: Fields = {"added_tokens": list_of(_ADDED_TOKEN)}
"""Fields of a ``tokenizer.json`` that are needed here."""

_TIMESTAMPS = 1501  # from 0.00 to 30.00 s


def read_ctranslate2_files(folder: Path, model: WhisperConfig, *, origin: str) -> CheckpointFiles:
    """Read the small files of a CTranslate2 folder in the form of a Hugging Face folder.

    Args:
        folder: Folder of the checkpoint; it needs ``tokenizer.json``, and ``config.json`` for suppressed
            tokens and alignment heads.
        model: Architecture of the model.
        origin: Name of the checkpoint in messages.

    Returns:
        The files as in the Hugging Face checkpoint from which it was converted.

    Raises:
        InputError: If the tokenizer is missing or not Whisper's, or a file is damaged or has a wrong field.
    """
    name = f"tokenizer.json of {origin}"
    document = read_json(folder / "tokenizer.json", name=name)
    if document is None:
        raise InputError(
            f"{origin} holds no tokenizer.json: copy it there from the checkpoint it was converted from "
            "(or convert again with `ct2-transformers-converter --copy_files tokenizer.json`)"
        )
    check_fields(document, _TOKENIZER_FIELDS, name=name, required=("added_tokens",))
    settings = read_small_file(folder, "config.json", origin=origin) or {}
    tokens = list_of(whole_number(0, model.vocab_size - 1))
    suppressed = dict.fromkeys(("suppress_ids", "suppress_ids_begin"), tokens)
    check_fields(settings, suppressed, name=f"config.json of {origin}")
    added = {token["content"]: token["id"] for token in document["added_tokens"] if token["special"]}
    try:
        special = _special_ids(added)
        tokenizer = _with_timestamps(document, first=added["<|notimestamps|>"] + 1, end=model.vocab_size)
        generation = _generation_config(settings, added, special)
    except KeyError as error:
        raise InputError(f"{name} has no token {error}: it is not Whisper's") from error
    return CheckpointFiles(
        origin=origin,
        config=huggingface_config(model, special),
        generation_config=generation,
        preprocessor_config=read_preprocessor(folder, model.num_mel_bins, origin=origin),
        tokenizer_config=(
            read_small_file(folder, "tokenizer_config.json", origin=origin)
            or default_tokenizer_config(list(added))
        ),
        tokenizer={"tokenizer.json": json.dumps(tokenizer, ensure_ascii=False).encode()},
    )


def huggingface_config(model: WhisperConfig, special: Mapping[str, int]) -> dict[str, Any]:
    """Return a complete ``config.json`` for an architecture.

    Args:
        model: The architecture.
        special: Values of ``decoder_start_token_id``, ``bos_token_id``, ``eos_token_id`` and
            ``pad_token_id``.
    """
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "use_cache": True,
        "init_std": 0.02,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        **model.to_huggingface(),
        **special,
    }


def _special_ids(added: Mapping[str, int]) -> dict[str, int]:
    end = added["<|endoftext|>"]
    return dict.fromkeys(SPECIAL_IDS, end) | {"decoder_start_token_id": added["<|startoftranscript|>"]}


def _with_timestamps(document: dict[str, Any], *, first: int, end: int) -> dict[str, Any]:
    """Add the tokens ``<|0.00|>`` … ``<|30.00|>``, which the files of CTranslate2 folders leave out."""
    present = {token["id"] for token in document["added_tokens"]}
    timestamps = [
        {
            "id": index,
            "content": f"<|{(index - first) * 0.02:.2f}|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": True,
            "special": False,
        }
        for index in range(first, min(end, first + _TIMESTAMPS))
        if index not in present
    ]
    return {**document, "added_tokens": [*document["added_tokens"], *timestamps]}


def _generation_config(
    source: Mapping[str, Any], added: Mapping[str, int], special: Mapping[str, int]
) -> dict[str, Any]:
    start, translate = special["decoder_start_token_id"], added["<|translate|>"]
    # English-only tokenizers have the language tokens too, but their text vocabulary has one entry less, so
    # the id of their end of text is lower by one.
    multilingual = special["eos_token_id"] == 50257
    generation: dict[str, Any] = {
        "begin_suppress_tokens": source.get("suppress_ids_begin"),
        "is_multilingual": multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "no_timestamps_token_id": added["<|notimestamps|>"],
        "prev_sot_token_id": added["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": source.get("suppress_ids"),
        **special,
    }
    if source.get("alignment_heads"):
        generation["alignment_heads"] = source["alignment_heads"]
    if multilingual:
        generation["lang_to_id"] = {
            token: index for token, index in added.items() if start < index < translate
        }
        generation["task_to_id"] = {task: added[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return generation


def default_tokenizer_config(special_tokens: list[str]) -> dict[str, Any]:
    """Return the tokenizer config of a published Whisper with these special tokens."""
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end),
        "model_max_length": 1024,
        "add_prefix_space": False,
        "errors": "replace",
        "return_attention_mask": False,
        "additional_special_tokens": special_tokens,
    }
