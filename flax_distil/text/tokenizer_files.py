"""Read and check the files of a tokenizer, and build a backend of ``tokenizers`` from them.

The contents are checked before the backend is built: it reads them in Rust, where some mistakes cause a panic
    instead of an error.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from flax_distil.core.errors import InputError
from flax_distil.core.fields import (
    Fields,
    check_fields,
    either,
    list_of,
    map_to,
    object_with,
    of_type,
    one_line,
    one_of,
    whole_number,
)
from flax_distil.core.json_files import read_bounded, read_json
from flax_distil.text.special_tokens import SpecialTokens

_TEXT = of_type(str, "text")
_ID = whole_number(0, 2**31 - 1)

_ADDED_TOKEN = object_with({"id": _ID, "content": _TEXT, "special": of_type(bool, "true or false")})
_BYTE_LEVEL = object_with({"type": one_of("ByteLevel")})
_TOKENIZER_FIELDS: Fields = {
    "version": one_of("1.0"),
    "pre_tokenizer": _BYTE_LEVEL,
    "decoder": _BYTE_LEVEL,
    "model": of_type(dict, "an object"),
    "added_tokens": list_of(_ADDED_TOKEN),
}
_REQUIRED = ("added_tokens", "pre_tokenizer", "decoder")
_MODEL_FIELDS: Fields = {
    "type": one_of("BPE"),
    "vocab": map_to(_ID),
    "merges": list_of(either(_TEXT, list_of(_TEXT, length=2))),
    "dropout": one_of(0, 0.0),  # encodes the same text differently each time
    "continuing_subword_prefix": one_of(""),  # with merges that lack it, the backend panics
    "end_of_word_suffix": one_of(""),
}
"""Fields of the model in a ``tokenizer.json``: byte-level pair encoding, which every Whisper has."""

_ADDED_IN_CONFIG = object_with({"content": _TEXT})
_CONFIG_FIELDS: Fields = {"added_tokens_decoder": map_to(_ADDED_IN_CONFIG)}
"""Fields of a ``tokenizer_config.json`` that lists the added tokens."""

FILE_NAMES = (
    "tokenizer.json", "generation_config.json", "vocab.json", "merges.txt", "added_tokens.json",
    "tokenizer_config.json",
)  # fmt: skip
"""Names of all files that a tokenizer may be read from."""

_TRIAL = " A trial: 3.50 – naïve, 日本 <|en|>\n"
"""Text that every tokenizer encodes and decodes once when it is read, so that a broken one is noticed."""


def open_tokenizer(folder: Path, *, origin: str | None = None) -> tuple[Tokenizer, SpecialTokens]:
    """Build the tokenizer of a folder from ``tokenizer.json``, or else ``vocab.json`` with ``merges.txt``.

    Args:
        folder: Folder of a checkpoint in Hugging Face or CTranslate2 format.
        origin: Name of the checkpoint in messages; by default its path.

    Returns:
        The backend and its special tokens.

    Raises:
        InputError: If these files are missing, damaged, or not Whisper's.
    """

    def name(file_name: str) -> str:
        return str(folder / file_name) if origin is None else f"{file_name} of {origin}"

    languages = _lang_to_id(folder, name("generation_config.json"))
    contents = read_json(folder / "tokenizer.json", name=name("tokenizer.json"))
    if contents is not None:
        return _from_tokenizer_json(contents, languages, name("tokenizer.json"))
    known = read_json(folder / "vocab.json", name=name("vocab.json"))
    merges = read_bounded(folder / "merges.txt", name=name("merges.txt"))
    if known is None or merges is None:
        raise InputError(
            f"no tokenizer in {origin or folder}: expected tokenizer.json, or vocab.json and merges.txt, "
            "as published with the checkpoint"
        )
    check_fields({"vocab": known}, {"vocab": map_to(_ID)}, name=name("vocab.json"))
    added = _added_tokens(folder, name)
    backend = _from_merges(known, _merge_pairs(merges, name("merges.txt")), added, name("vocab.json"))
    vocabulary = backend.get_vocab()
    return backend, SpecialTokens.from_vocabulary(vocabulary, origin=name("vocab.json"), lang_to_id=languages)


def files_digest(folder: Path) -> str | None:
    """Return a digest of the files that a tokenizer may be read from; None if one of them cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    for name in FILE_NAMES:
        try:
            contents = read_bounded(folder / name, name=name)
        except InputError:
            return None
        digest.update(f"{None if contents is None else len(contents)}\0".encode())
        digest.update(contents or b"")
    return digest.hexdigest()


def _lang_to_id(folder: Path, name: str) -> dict[str, int] | None:
    """Return the languages that the generation config lists; None if it lists none."""
    contents = read_json(folder / "generation_config.json", name=name) or {}
    check_fields(contents, {"lang_to_id": map_to(_ID)}, name=name)
    return contents.get("lang_to_id") or None


def _from_tokenizer_json(
    contents: dict[str, Any], languages: Mapping[str, int] | None, name: str
) -> tuple[Tokenizer, SpecialTokens]:
    if not isinstance(contents.get("model"), dict):
        raise InputError(f"{name} is not a tokenizer file: expected the fields of Hugging Face tokenizers")
    check_fields(contents, _TOKENIZER_FIELDS, name=name, required=_REQUIRED)
    check_fields(contents["model"], _MODEL_FIELDS, name=f"the model in {name}", required=("vocab", "merges"))
    vocabulary = contents["model"]["vocab"]
    vocabulary = vocabulary | {token["content"]: token["id"] for token in contents["added_tokens"]}
    special = SpecialTokens.from_vocabulary(vocabulary, origin=name, lang_to_id=languages)
    return _build(name, lambda: _backend_from_json(contents, special)), special


def _from_merges(
    known: dict[str, int], pairs: list[tuple[str, str]], added: dict[str, int], name: str
) -> Tokenizer:
    backend = _build(name, lambda: _backend_from_merges(known, pairs, added))
    moved = [text for text, token in added.items() if backend.token_to_id(text) != token]
    if moved:
        raise InputError(
            f"{name}: the added token {one_line(moved[0])!r} should have id {added[moved[0]]} but the "
            f"vocabulary leaves it {backend.token_to_id(moved[0])}: the files do not belong together"
        )
    return backend


def _build(name: str, build: Callable[[], Tokenizer]) -> Tokenizer:
    """Build a backend and test it with a text, so that its errors and panics become an ``InputError``."""
    try:
        backend = build()
        backend.decode(backend.encode(_TRIAL, add_special_tokens=False).ids)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the backend raises bare exceptions, and panics that are no Exception
        reason = one_line(str(error).partition(" at line ")[0])  # a line of what is built, not of the file
        raise InputError(f"{name} is not a tokenizer that can be used ({reason}): fetch it again") from error
    return backend


def _backend_from_json(contents: dict[str, Any], special: SpecialTokens) -> Tokenizer:
    """Build a tokenizer in which every listed timestamp is a special token.

    Published files differ in this flag. Without it, timestamps in text would be matched even where they must
    be encoded as ordinary text.
    """
    added = [
        token | {"special": token["special"] or special.is_timestamp(token["id"])}
        for token in contents["added_tokens"]
    ]
    model = contents["model"]
    model = model | {"merges": _with_lost_merge(model["merges"], model["vocab"])}
    return Tokenizer.from_str(json.dumps(contents | {"added_tokens": added, "model": model}))


def _with_lost_merge(merges: list[Any], vocabulary: Mapping[str, int]) -> list[Any]:
    """Restore the first merge, of a space and a "t", where a published file lost it.

    Multilingual files were converted as if the first line of the merges were a heading. The models were
        trained with this merge: for them " the" is one token, but a file without the merge encodes it as two.
    """
    if "Ġt" not in vocabulary or any(merge in ("Ġ t", ["Ġ", "t"], ("Ġ", "t")) for merge in merges):
        return merges
    return ["Ġ t" if merges and isinstance(merges[0], str) else ["Ġ", "t"], *merges]


def _backend_from_merges(
    known: dict[str, int], pairs: Sequence[tuple[str, str]], added: Mapping[str, int]
) -> Tokenizer:
    """Build a tokenizer from the older kind of files: vocabulary, merges and list of added tokens."""
    merges = [(left, right) for left, right in _with_lost_merge(list(pairs), known)]
    backend = Tokenizer(models.BPE(vocab=known, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [
            AddedToken(text, normalized=False, special=True)
            for text in sorted(added, key=lambda text: added[text])
        ]
    )
    return backend


def _merge_pairs(contents: bytes, name: str) -> list[tuple[str, str]]:
    """Return the pairs of ``merges.txt``, one on each line."""
    try:
        lines = contents.decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (at byte {error.start}): fetch it again") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#version"):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise InputError(f"line {number} of {name} is {one_line(line)!r}: expected two pieces of a token")
        pairs.append((left, right))
    return pairs


def _added_tokens(folder: Path, name: Callable[[str], str]) -> dict[str, int]:
    """Return the ids of added tokens by text, from either of the two files that may list them."""
    file_name = "added_tokens.json"
    added = read_json(folder / file_name, name=name(file_name))
    if added is not None:
        check_fields({"tokens": added}, {"tokens": map_to(_ID)}, name=name(file_name))
        return added
    file_name = "tokenizer_config.json"
    config = read_json(folder / file_name, name=name(file_name)) or {}
    check_fields(config, _CONFIG_FIELDS, name=name(file_name))
    entries = config.get("added_tokens_decoder") or {}
    strays = [token for token in entries if not (token.isascii() and token.isdecimal() and len(token) < 11)]
    if strays:
        raise InputError(
            f"{name(file_name)} has {one_line(strays[0])!r} in added_tokens_decoder: expected a token id"
        )
    return {entry["content"]: int(token) for token, entry in entries.items()}
