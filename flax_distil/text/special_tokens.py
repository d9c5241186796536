"""The ids of special tokens: end, start, languages, tasks, prompts and timestamps.

Every Whisper vocabulary is laid out in the same order, only the offsets differ::

    0 ... eot-1   eot   sot   <|en|> ...   <|translate|> <|transcribe|> <|startoflm|>
    text pieces                            <|startofprev|> <|nospeech|> <|notimestamps|>
                                           <|0.00|> <|0.02|> ... <|30.00|>

The 1501 timestamps are found by arithmetic, not by name: several published
``tokenizer.json`` (all those of CTranslate2 folders) leave them out. What fine-tuning added
stands after ``<|30.00|>``: it is text, unless it names a language.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flax_distil.core.errors import InputError
from flax_distil.text.languages import LANGUAGE_CODES

TIMESTAMP_COUNT = 1501
"""Timestamps from 0.00 to 30.00 s, both ends included, in steps of 0.02 s."""

# English-only models keep GPT-2's vocabulary, which ends there; the multilingual one is a token longer.
# Both carry language and task tokens, but English-only models never saw theirs in training.
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
        languages: Language code to id; empty in English-only vocabularies.
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

    def is_text(self, token: int) -> bool:
        """Whether an id is text: what the vocabulary was made of, and words added after the timestamps."""
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
        """Find the special tokens in a vocabulary.

        Args:
            vocabulary: Token text to id, special tokens included; timestamps may be missing.
            origin: What the vocabulary was read from, for the error message.
            lang_to_id: Language tokens of the generation config, such as ``{"<|hak|>": 51865}``; those that
                the vocabulary does not have under this id are left out.

        Returns:
            The ids. Hebrew is ``he`` even where the file says ``<|iw|>``.

        Raises:
            InputError: If the vocabulary is not Whisper's; the missing tokens are listed.
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
    """Return language code to id, ordered by id.

    What looks like a language after the timestamps counts only if the generation config does not list
    the languages, or lists it.
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
