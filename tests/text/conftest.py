"""Tokenizers: the two real ones, one laid out as large-v3, one without timestamps as CTranslate2 ships it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer

SENTENCES = [
    " And so, my fellow Americans, ask not what your country can do for you.",
    " Hello , world .  Two  spaces, a\ttab and\na line; it 's n't cleaned up !",
    "No leading space",
    " 3.14159 costs $2,000.00 — 50% off (today)",
    " Ça va? Où êtes-vous, Noël? Straße, Łódź, øre.",
    " 日本語のテストです。你好，世界！",
    " नमस्ते दुनिया สวัสดี 안녕하세요 Привет שלום",
    " emoji 🙂👩‍👩‍👧 and ﬁ ligatures",
    " <|not a token|> <| 0.00 |> a<b|c>d",
    " ",
    "",
]


def edited_tokenizer(source: Path, target: Path, edit: Any) -> Path:
    """Copy a tokenizer into a folder with its added tokens edited."""
    target.mkdir(exist_ok=True)
    contents = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    contents["added_tokens"] = edit(contents["added_tokens"])
    (target / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")
    shutil.copy(source / "tokenizer_config.json", target)
    return target


@pytest.fixture(scope="session")
def large_v3_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The multilingual tokenizer with Cantonese between Sundanese and the tasks, as in large-v3."""

    def add_cantonese(added: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sundanese = next(token for token in added if token["content"] == "<|su|>")
        for token in added:
            token["id"] += token["id"] > sundanese["id"]
            token["content"] = {"<|nocaptions|>": "<|nospeech|>"}.get(token["content"], token["content"])
        cantonese = sundanese | {"content": "<|yue|>", "id": sundanese["id"] + 1}
        return sorted([*added, cantonese], key=lambda token: token["id"])

    target = edited_tokenizer(base_dir, tmp_path_factory.mktemp("large-v3"), add_cantonese)
    # Transformers takes the first timestamp to be the id after the last token of this list.
    added = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    config = json.loads((base_dir / "tokenizer_config.json").read_text())
    config["additional_special_tokens"] = [token["content"] for token in added if token["special"]]
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


@pytest.fixture(scope="session")
def without_timestamps_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The multilingual tokenizer as CTranslate2 folders carry it: it ends with <|notimestamps|>."""
    return edited_tokenizer(
        base_dir,
        tmp_path_factory.mktemp("ctranslate2"),
        lambda added: [token for token in added if not token["content"][2].isdigit()],
    )


@pytest.fixture(scope="session")
def tiny_en(tiny_en_dir: Path) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(tiny_en_dir)


@pytest.fixture(scope="session")
def base(base_dir: Path) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(base_dir)


@pytest.fixture(scope="session")
def special(base: WhisperTokenizer) -> SpecialTokens:
    return base.special


@pytest.fixture(scope="session", params=["tiny_en_dir", "base_dir", "large_v3_dir"])
def checkpoint_dir(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="session")
def ours(checkpoint_dir: Path) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(checkpoint_dir)


@pytest.fixture(scope="session")
def theirs(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer of transformers for the same folder, with the first merge that published files lost."""
    import transformers

    folder = tmp_path_factory.mktemp("theirs")
    shutil.copytree(
        checkpoint_dir, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors")
    )
    contents = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    merges = contents["model"]["merges"]
    if len(merges) == 49_999:
        merges.insert(0, "Ġ t")
    (folder / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")
    return transformers.WhisperTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return SENTENCES
