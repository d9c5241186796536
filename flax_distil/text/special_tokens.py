"""Ids of special tokens: end, start, languages, tasks, prompts and timestamps.

Every Whisper vocabulary has the same order; only the offsets differ::

    0 ... eot-1   eot   sot   <|en|> ...   <|translate|> <|transcribe|> <|startoflm|>
    text pieces                            <|startofprev|> <|nospeech|> <|notimestamps|>
                                           <|0.00|> <|0.02|> ... <|30.00|>

The ids of the 1501 timestamps are computed, not looked up by name, because several published
``tokenizer.json`` (all those of CTranslate2 folders) leave them out. Tokens that fine-tuning added follow
``<|30.00|>``; they are text, unless they name a language.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flax_distil.core.errors import InputError
from flax_distil.text.languages import LANGUAGE_CODES

TIMESTAMP_COUNT = 1501
"""Number of timestamps from 0.00 to 30.00 s, both included, in steps of 0.02 s."""

# English-only models have the vocabulary of GPT-2, which ends with this id; the multilingual vocabulary is
# one token longer. Both have tokens of languages and tasks, but English-only models were not trained on
# theirs.
_ENGLISH_ONLY_END_OF_TEXT = 50256

_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")
_NO_SPEECH_NAMES = ("<|nospeech|>", "<|nocaptions|>")


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of the special tokens of one vocabulary.

    Attributes:
        eot: ``<|endoftext|>``, the end of a transcript; also used as padding.
        sot: ``<|startoftranscript|>``.
        sot_prev: ``<|startofprev|>``, which introduces the previous text.
        no_speech: ``<|nospeech|>`` (``<|nocaptions|>`` in older files).
        no_timestamps: ``<|notimestamps|>``.
        timestamp_begin: ``<|0.00|>``.
        transcribe: ``<|transcribe|>``, None in English-only vocabularies.
        translate: ``<|translate|>``, None in English-only vocabularies.
        languages: Ids of languages by code; empty in English-only vocabularies.
        vocab_size: Number of ids, timestamps included.
    """

    eot: int
    sot: int
    sot_prev: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    transcribe: int | None = None
    translate: int | None = None
    languages: dict[str, int] = field(default_factory=dict, hash=False)
    vocab_size: int

    @property
    def is_multilingual(self) -> bool:
        """Whether prompts name a language and a task."""
        return bool(self.languages)

    @property
    def timestamp_end(self) -> int:
        """The id after ``<|30.00|>``."""
        return self.timestamp_begin + TIMESTAMP_COUNT

    def is_timestamp(self, token: int) -> bool:
        """Whether an id is one of ``<|0.00|>`` … ``<|30.00|>``."""
        return self.timestamp_begin <= token < self.timestamp_end

    def is_special(self, token: int) -> bool:
        """Whether an id is neither text nor a timestamp: ``<|endoftext|>`` … ``<|notimestamps|>``.

        A language that was added after the timestamps is special too.
        """
        if token < self.timestamp_end:
            return self.eot <= token < self.timestamp_begin
        return token in self.languages.values()

    def among(self, vocabulary: Mapping[str, int]) -> dict[str, int]:
        """Return the entries of a vocabulary, text to id, whose ids are special."""
        later = {token for token in self.languages.values() if token >= self.timestamp_end}
        marks = range(self.eot, self.timestamp_begin)
        return {text: token for text, token in vocabulary.items() if token in marks or token in later}

    def is_text(self, token: int) -> bool:
        """Whether an id is text: of the original text vocabulary, or a word added after the timestamps."""
        return 0 <= token < self.eot or (
            self.timestamp_end <= token < self.vocab_size and not self.is_special(token)
        )

    @classmethod
    def from_vocabulary(
        cls,
        vocabulary: Mapping[str, int],
        *,
        origin: str = "the tokenizer",
        lang_to_id: Mapping[str, int] | None = None,
    ) -> "SpecialTokens":
        """Return the special tokens of a vocabulary.

        Args:
            vocabulary: Ids by text of the token, including special tokens; timestamps may be missing.
            origin: Name of the source of the vocabulary, for the error message.
            lang_to_id: Language tokens of the generation config, such as ``{"<|hak|>": 51865}``; tokens with
                another id in the vocabulary are left out.

        Returns:
            The ids. The code of Hebrew is ``he`` even where the file has ``<|iw|>``.

        Raises:
            InputError: If the vocabulary is not Whisper's; the message lists the missing tokens.
        """
        ids = _find_ids(vocabulary, origin)
        timestamp_begin = ids["no_timestamps"] + 1
        vocab_size = max(timestamp_begin + TIMESTAMP_COUNT, max(vocabulary.values()) + 1)
        multilingual = ids["eot"] != _ENGLISH_ONLY_END_OF_TEXT
        return cls(
            **ids,
            timestamp_begin=timestamp_begin,
            vocab_size=vocab_size,
            transcribe=vocabulary.get("<|transcribe|>") if multilingual else None,
            translate=vocabulary.get("<|translate|>") if multilingual else None,
            languages=_languages(vocabulary, timestamp_begin, lang_to_id) if multilingual else {},
        )


def _find_ids(vocabulary: Mapping[str, int], origin: str) -> dict[str, int]:
    """Return the ids of the tokens that every Whisper vocabulary has, by their role."""
    no_speech = next((name for name in _NO_SPEECH_NAMES if name in vocabulary), _NO_SPEECH_NAMES[0])
    names = {
        "eot": "<|endoftext|>",
        "sot": "<|startoftranscript|>",
        "sot_prev": "<|startofprev|>",
        "no_speech": no_speech,
        "no_timestamps": "<|notimestamps|>",
    }
    missing = [name for name in names.values() if name not in vocabulary]
    if missing:
        raise InputError(f"{origin} has no {', '.join(missing)}: expected a Whisper vocabulary")
    ids = {role: vocabulary[name] for role, name in names.items()}
    inner = (ids["sot"], ids["sot_prev"], ids["no_speech"])
    if not ids["eot"] < min(inner) or not max(inner) < ids["no_timestamps"]:
        order = ", ".join(f"{names[role]} {ids[role]}" for role in names)
        raise InputError(
            f"{origin} has {order}: expected <|endoftext|> first and <|notimestamps|> last, as in every "
            "Whisper"
        )
    return ids


def _languages(
    vocabulary: Mapping[str, int], timestamp_begin: int, lang_to_id: Mapping[str, int] | None
) -> dict[str, int]:
    """Return the ids of languages by code, ordered by id.

    A token after the timestamps that looks like a language counts as one only if the generation config lists
    it, or lists no languages at all.
    """
    found = {
        match[1]: token
        for text, token in vocabulary.items()
        if (match := _LANGUAGE_TOKEN.fullmatch(text)) and (lang_to_id is None or token < timestamp_begin)
    }
    for text, token in (lang_to_id or {}).items():
        if vocabulary.get(text) == token:
            found[text.removeprefix("<|").removesuffix("|>").lower()] = token
    ordered = sorted(found.items(), key=lambda item: item[1])
    return {LANGUAGE_CODES.get(code, code): token for code, token in ordered}
