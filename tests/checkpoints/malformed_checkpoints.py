"""Checkpoints that are wrong somewhere, drawn by a seed: every file, every field, every way that happens."""

import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.checkpoints.foreign_folders import toy_flax_files, toy_openai_files
from tests.checkpoints.toy_folder import (
    toy_ctranslate2_files,
    toy_documents,
    toy_files,
    toy_old_tokenizer_files,
)

Files = dict[str, bytes]

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 1.5, 1e308, 2**31, 2**63, 2**64, 10**30, -(10**30), "", "abc", "nan",
    "0", "\0", "<|en|>", "é" * 3, "x" * 5000, [], {}, [[]], [None], [0, 1], [1.5], ["a"], [-1], [2**40],
    [[0, 0]], [[0, "a"]], {"a": 1}, {"a": None}, {"": -1}, {"type": "?"}, {"type": "ByteLevel"}, {"id": -5},
    [{"id": -5, "content": "x"}],
    [{"id": 3, "content": "x", "special": True}], {"<|en|>": 2**33}, {"3": {"content": 5}},
)  # fmt: skip
"""What stands where something else should."""

DOCUMENTS: tuple[bytes, ...] = (
    b"", b" ", b"null", b"true", b"3", b'"a"', b"[]", b"{}", b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 70 + b"1" + b"}" * 70, b'{"a":' * 50_000, b"{not json", b'{"a": NaN}', b'{"a": Infinity}',
    b'{"a": 1, "a": 2}', b'{"a": ' + b"9" * 6000 + b"}", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\0" * 100,
    b'{"a": "\\ud800"}', b"\x80abc", b"<html><body>404: Not Found</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
)  # fmt: skip
"""What stands where a document should."""

JSON_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json",
    "tokenizer.json", "vocab.json", "added_tokens.json", "processor_config.json", "adapter_config.json",
    "special_tokens_map.json", "model.safetensors.index.json",
)  # fmt: skip


def malformed_checkpoints(seed: int, count: int, *, kinds: Sequence[str] = ()) -> Iterator[tuple[str, Files]]:
    """Yield what was done to a checkpoint, and ``{file name: contents}``.

    One in ten is changed twice. Some of the changes leave a checkpoint that is whole. Without ``kinds`` there
    are all.
    """
    random_ = random.Random(seed)
    kinds = kinds or list(_CHANGES)
    for index in range(count):
        kind = kinds[index % len(kinds)]
        files = _CHANGES[kind](random_)
        if random_.random() < 0.1:
            files = _damaged_text(random_, files)
        yield f"{kind}-{seed}-{index}", files


def _changed_field(random_: random.Random) -> Files:
    """Put a value of another kind somewhere into a document."""
    files, documents = toy_files(), toy_documents()
    name = random_.choice(list(documents))
    _put(random_, documents[name], random_.choice(VALUES))
    return files | {name: _dump(documents[name])}


def _changed_size(random_: random.Random) -> Files:
    """Change a field of config.json, which decides about shapes."""
    files, config = toy_files(), toy_documents()["config.json"]
    numbers = [name for name, value in config.items() if isinstance(value, int | float)]
    config[random_.choice(numbers)] = random_.choice([*VALUES, *range(1, 9), 80, 128, 1500, 100_000])
    return files | {"config.json": _dump(config)}


def _changed_token(random_: random.Random) -> Files:
    """Change what tokenizer.json says of its model, its added tokens or the steps around it."""
    document = toy_documents()["tokenizer.json"]
    target = random_.choice([document["model"], random_.choice(document["added_tokens"]), document])
    name = random_.choice(list(target))
    if random_.random() < 0.2:
        del target[name]
    else:
        target[name] = random_.choice(VALUES)
    return toy_files() | {"tokenizer.json": _dump(document)}


def _other_document(random_: random.Random) -> Files:
    return toy_files() | {random_.choice(JSON_FILES): random_.choice(DOCUMENTS)}


def _without_files(random_: random.Random) -> Files:
    files = random_.choice([toy_files, toy_old_tokenizer_files, toy_ctranslate2_files])()
    for name in random_.sample(sorted(files), random_.randint(1, 2)):
        del files[name]
    return files


def _old_tokenizer(random_: random.Random) -> Files:
    """Damage the older files of a tokenizer."""
    files = toy_old_tokenizer_files()
    name = random_.choice(["vocab.json", "merges.txt", "added_tokens.json"])
    if name == "merges.txt":
        lines = files[name].decode().splitlines()
        lines.insert(
            random_.randrange(len(lines)), random_.choice(["a", "a b c", "é zz", "\0 \0", "Ġ  t", " "])
        )
        return files | {name: "\n".join(lines).encode()}
    document = json.loads(files[name])
    _put(random_, document, random_.choice(VALUES))
    return files | {name: _dump(document)}


def _changed_header(random_: random.Random) -> Files:
    """Let the header of the weights say something else of a tensor."""
    files = toy_files()
    data = files["model.safetensors"]
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    tensor = random_.choice(list(header))
    what = random_.randrange(4)
    if what == 0:
        del header[tensor]
    elif what == 1:
        header[random_.choice(["x", "encoder.conv1.bias", "proj_out.weight", "\0", "é" * 2000])] = header[
            tensor
        ]
    elif what == 2:
        header[tensor] = random_.choice(VALUES)
    else:
        field = random_.choice(["dtype", "shape", "data_offsets"])
        numbers = [0, 1, 8, -1, 2**62, 2**64]
        header[tensor][field] = random_.choice(
            [*VALUES, "F16", "I64", "F8_E4M3", "F4", "C64", random_.choices(numbers, k=2), [8], [8, 1], []]
        )
    text = _dump(header)
    return files | {"model.safetensors": struct.pack("<Q", len(text)) + text + data[8 + length :]}


def _damaged_weights(random_: random.Random) -> Files:
    """Cut the file of the weights, or change some of its bytes."""
    files = random_.choice([toy_files, toy_ctranslate2_files])()
    name = "model.bin" if "model.bin" in files else "model.safetensors"
    return files | {
        name: _damaged(random_, files[name], within=random_.choice([8, 300, 8000, len(files[name])]))
    }


def _damaged_openai(random_: random.Random) -> Files:
    """Cut a file of openai-whisper, or change some of its bytes: in the pickle, of tensors, or of the zip."""
    files = toy_openai_files()
    data = files["model.pt"]
    if random_.random() < 0.2:  # the list of a zip archive's entries is at its end
        place = len(data) - random_.randint(1, 12_000)
        return files | {"model.pt": data[:place] + _damaged(random_, data[place:], within=12_000)}
    within = random_.choice([60, 12_000, 12_000, 12_000, len(data)])
    return files | {"model.pt": _damaged(random_, data, within=within)}


def _damaged_flax(random_: random.Random) -> Files:
    """Cut Flax weights, or change some of their bytes."""
    files = toy_flax_files()
    data = files["flax_model.msgpack"]
    within = random_.choice([60, 300, 8000, len(data)])
    return files | {"flax_model.msgpack": _damaged(random_, data, within=within)}


def _changed_index(random_: random.Random) -> Files:
    """Shards with an index that is wrong."""
    files = toy_files()
    weights = files.pop("model.safetensors")
    files["model-00001-of-00001.safetensors"] = weights
    places: Any = dict.fromkeys(("a", "b"), "model-00001-of-00001.safetensors")
    places["b"] = random_.choice(
        [*VALUES, "model-00001-of-00001.safetensors", "/etc/passwd", "../x.safetensors", "."]
    )
    index: Any = {"metadata": {"total_size": 1}, "weight_map": random_.choice([places, *VALUES])}
    return files | {"model.safetensors.index.json": _dump(random_.choice([index, *VALUES]))}


def _changed_ctranslate2(random_: random.Random) -> Files:
    """Change a field in one of the documents of a CTranslate2 folder."""
    files = toy_ctranslate2_files()
    name = random_.choice(["config.json", "tokenizer.json"])
    document = json.loads(files[name])
    _put(random_, document, random_.choice(VALUES))
    return files | {name: _dump(document)}


def _not_finite(random_: random.Random) -> Files:
    files = toy_files()
    data = bytearray(files["model.safetensors"])
    place = len(data) - 4 * random_.randint(1, 20_000)
    data[place : place + 4] = struct.pack("<f", random_.choice([float("nan"), float("inf"), -float("inf")]))
    return files | {"model.safetensors": bytes(data)}


def _text(random_: random.Random) -> Files:
    return _damaged_text(random_, toy_files())


_CHANGES: dict[str, Callable[[random.Random], Files]] = {
    "field": _changed_field,
    "size": _changed_size,
    "token": _changed_token,
    "document": _other_document,
    "text": _text,
    "missing": _without_files,
    "old-tokenizer": _old_tokenizer,
    "header": _changed_header,
    "weights": _damaged_weights,
    "index": _changed_index,
    "ctranslate2": _changed_ctranslate2,
    "not-finite": _not_finite,
    "openai": _damaged_openai,
    "flax": _damaged_flax,
}


def _damaged_text(random_: random.Random, files: Files) -> Files:
    """Cut one of the documents, or change some of its bytes."""
    names = [name for name in sorted(files) if name.endswith((".json", ".txt"))]
    if not names:
        return files
    name = random_.choice(names)
    return files | {name: _damaged(random_, files[name], within=len(files[name]))}


def _damaged(random_: random.Random, data: bytes, *, within: int) -> bytes:
    within = max(1, min(within, len(data)))
    if random_.random() < 0.4:
        return data[: random_.randrange(within)]
    changed = bytearray(data)
    for _ in range(random_.choice([1, 1, 4])):
        if changed:
            changed[random_.randrange(min(within, len(changed)))] = random_.choice(
                [0, 1, 0x22, 0x5B, 0x7F, 0xFF]
            )
    return bytes(changed)


def _put(random_: random.Random, document: Any, value: Any) -> None:
    """Put a value at a place of a document, the upper ones being likelier."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        if not keys:
            return
        key = random_.choice(keys)
        below = document[key]
        if not isinstance(below, dict | list) or not below or random_.random() < 0.4:
            document[key] = value
            return
        document = below


def _dump(document: Any) -> bytes:
    return json.dumps(document).encode()
