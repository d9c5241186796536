"""A whole checkpoint of a toy Whisper as the bytes of its files, made in milliseconds without JAX."""

import functools
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers.pre_tokenizers import ByteLevel

from flax_distil.checkpoints.formats.ctranslate2 import possible_parts
from flax_distil.checkpoints.formats.mapping import tensor_locations
from flax_distil.model.config import WhisperConfig

SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
MERGES = ("Ġ t", "h e", "Ġt he", "i n", "r e", "o n", "Ġ a", "e r")


def toy_vocabulary() -> dict[str, int]:
    """Every byte, then what the merges make."""
    pieces = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    return {piece: token for token, piece in enumerate(pieces)}


def toy_config() -> WhisperConfig:
    return WhisperConfig(
        vocab_size=len(toy_vocabulary()) + len(SPECIAL) + 1501,
        num_mel_bins=80,
        d_model=8,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=1500,
        max_target_positions=64,
    )


def toy_documents() -> dict[str, dict[str, Any]]:
    """Its JSON files, parsed, each time anew."""
    vocabulary = toy_vocabulary()
    ids = {text: len(vocabulary) + index for index, text in enumerate(SPECIAL)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": token, "content": text, "special": True, **flags} for text, token in ids.items()]
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    return {
        "config.json": {"model_type": "whisper", **toy_config().to_huggingface(), **special},
        "generation_config.json": {
            "suppress_tokens": [1, 2],
            "begin_suppress_tokens": [3, end],
            "max_initial_timestamp_index": 50,
            "max_length": 64,
            "alignment_heads": [[1, 0], [1, 1]],
            "is_multilingual": True,
            "lang_to_id": {"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]},
            "task_to_id": {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
            "no_timestamps_token_id": ids["<|notimestamps|>"],
            "prev_sot_token_id": ids["<|startofprev|>"],
            **special,
        },
        "preprocessor_config.json": {
            "chunk_length": 30, "feature_size": 80, "hop_length": 160, "n_fft": 400, "sampling_rate": 16000,
            "feature_extractor_type": "WhisperFeatureExtractor",
        },
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer",
            "added_tokens_decoder": {str(token): {"content": text} for text, token in ids.items()},
        },
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": False, "vocab": vocabulary, "merges": list(MERGES),
            },
        },
    }  # fmt: skip


@functools.cache
def toy_tensors() -> Mapping[str, np.ndarray]:
    """Its weights under their Hugging Face names, float32."""
    generator = np.random.default_rng(0)
    return {
        name: generator.normal(scale=0.1, size=location.shape).astype(np.float32)
        for name, location in tensor_locations(toy_config()).items()
    }


def toy_files() -> dict[str, bytes]:
    """Return ``{file name: contents}`` of the whole checkpoint."""
    documents = {name: json.dumps(document).encode() for name, document in toy_documents().items()}
    return {**documents, "model.safetensors": _weights()}


@functools.cache
def _weights() -> bytes:
    return save(dict(toy_tensors()), metadata={"format": "pt"})


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a new folder and return it."""
    folder.mkdir(parents=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return folder


def toy_old_tokenizer_files() -> dict[str, bytes]:
    """Return the files with the vocabulary, merges and added tokens in files of their own."""
    files = toy_files()
    del files["tokenizer.json"]
    document = toy_documents()["tokenizer.json"]
    added = {token["content"]: token["id"] for token in document["added_tokens"]}
    return {
        **files,
        "vocab.json": json.dumps(document["model"]["vocab"]).encode(),
        "merges.txt": ("#version: 0.2\n" + "\n".join(MERGES) + "\n").encode(),
        "added_tokens.json": json.dumps(added).encode(),
    }


def toy_ctranslate2_files() -> dict[str, bytes]:
    """Return the files of a CTranslate2 folder."""
    documents = toy_documents()
    generation = documents["generation_config.json"]
    settings = {
        "suppress_ids": generation["suppress_tokens"],
        "suppress_ids_begin": generation["begin_suppress_tokens"],
        "alignment_heads": generation["alignment_heads"],
    }
    small = {"config.json": settings, "tokenizer.json": documents["tokenizer.json"]}
    written = {name: json.dumps(document).encode() for name, document in small.items()}
    return {**written, "model.bin": _model_bin()}


@functools.cache
def _model_bin() -> bytes:
    """Write ``model.bin`` as CTranslate2 does: queries, keys and values below each other."""
    pieces: dict[str, list[np.ndarray]] = {}
    for name, part in possible_parts({"encoder": 2, "decoder": 2}):
        tensor = toy_tensors().get(name)
        norm, ending = "layer_norm/" in part.variable, part.variable.rpartition("/")[2]
        if tensor is not None and norm == (ending in ("gamma", "beta")):
            if name.endswith("v_proj.bias"):  # zeros for the keys before it
                pieces.setdefault(part.variable, []).append(np.zeros_like(tensor))
            pieces.setdefault(part.variable, []).append(tensor)
    variables = {name: np.concatenate(parts) for name, parts in pieces.items()}
    for side in ("encoder", "decoder"):
        variables[f"{side}/num_heads"] = np.asarray(2, np.int8)
    kinds = {"float32": 0, "int8": 1}
    data = struct.pack("<I", 6) + _string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        data += _string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", kinds[array.dtype.name], array.nbytes) + array.tobytes()
    return data + struct.pack("<I", 0)


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"
