"""Convert text to token ids and back, and build the prompt of a transcript.

This is a thin layer over ``tokenizers``: the library does the byte-pair encoding of ordinary text, and this
file handles special tokens and timestamps. This has two advantages over the library's own matching of special
tokens: a reference text that happens to contain ``<|endoftext|>`` stays text, and timestamps also work where
``tokenizer.json`` leaves them out. Nothing here is mutable: a prompt is a value, not a setting.
"""

import dataclasses
import functools
import hashlib
import operator
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, SupportsIndex

from tokenizers import Tokenizer

from flax_distil.core.errors import InputError
from flax_distil.text.byte_level import to_bytes
from flax_distil.text.generation_settings import TASKS
from flax_distil.text.languages import resolve_language
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.timestamps import strip_timestamp_text, timestamp_from_text, timestamp_text
from flax_distil.text.tokenizer_files import files_digest, open_tokenizer

MAX_PREVIOUS_TOKENS = 223
"""Maximum length of the previous text in a prompt; with ``<|startofprev|>`` it fills half of the
positions."""

_MARK = re.compile(r"<\|[\w.-]+\|>")


class WhisperTokenizer:
    """Encoder and decoder of one Whisper vocabulary.

    Attributes:
        special: Ids of the special tokens.
    """

    special: SpecialTokens

    def __init__(self, backend: Tokenizer, special: SpecialTokens):
        """Wrap a tokenizer whose special tokens are marked as special; see :meth:`from_pretrained`."""
        self.special = special
        self._backend = backend
        # Special strings inside of text are encoded as ordinary text, because references may contain
        # anything.
        backend.encode_special_tokens = True
        # A tokenizer.json may contain limits from its training, but references must not be cut.
        backend.no_truncation()
        backend.no_padding()
        self._special_ids = special.among(backend.get_vocab(with_added_tokens=True))

    def __reduce__(self) -> tuple[Any, ...]:
        # The backend loses encode_special_tokens when it is pickled; __init__ sets it again.
        return type(self), (self._backend, self.special)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, origin: str | None = None) -> "WhisperTokenizer":
        """Read the tokenizer of a folder: ``tokenizer.json``, or else ``vocab.json`` with ``merges.txt``.

        ``lang_to_id`` in ``generation_config.json`` names languages that were added to the vocabulary. The
        same files give the same object again, as long as few others were read meanwhile.

        Args:
            folder: Folder of a checkpoint in Hugging Face or CTranslate2 format.
            origin: Name of the checkpoint in messages; by default its path.

        Raises:
            InputError: If the folder has no tokenizer, or its tokenizer is damaged or not Whisper's.
        """
        source = _Source(Path(folder), origin, files_digest(Path(folder)))
        return cls(*open_tokenizer(source.folder, origin=origin)) if source.digest is None else _read(source)

    def fingerprint(self) -> str:
        """Return a digest of the vocabulary and the rules of the tokenizer."""
        return hashlib.blake2b(self._backend.to_str().encode(), digest_size=16).hexdigest()

    def text_bytes(self) -> list[bytes]:
        """Return the bytes of each token of the original text vocabulary, by id; empty where there is none.

        Raises:
            InputError: If a token is not made of the characters of byte-level pair encoding.
        """
        pieces = [self._backend.id_to_token(token) or "" for token in range(self.special.eot)]
        try:
            return [to_bytes(piece) for piece in pieces]
        except KeyError as error:
            raise InputError(
                f"the tokenizer has a token with the character {error}: expected byte-level pair encoding, "
                "which every Whisper has"
            ) from error

    def encode(self, text: str, *, with_timestamps: bool = True, allow_special: bool = False) -> list[int]:
        """Return the ids of a text, without a prompt and without the end token.

        Args:
            text: Any text, which is encoded unchanged (transcripts begin with a space).
            with_timestamps: Encode ``<|1.80|>`` as a timestamp; otherwise it is encoded as ordinary text.
                Times that are no multiple of 0.02 s, such as ``<|1.81|>``, are always encoded as ordinary
                text.
            allow_special: Encode texts such as ``<|startoftranscript|>`` as special tokens. Use this only for
                text that this package wrote itself.

        Returns:
            The ids, which are never truncated.
        """
        ids: list[int] = []
        text_start = 0
        for mark in _MARK.finditer(text):
            token = timestamp_from_text(mark[0], self.special) if with_timestamps else None
            if token is None and allow_special:
                token = self._special_ids.get(mark[0])
            if token is not None:
                ids += self._encode_text(text[text_start : mark.start()])
                ids.append(token)
                text_start = mark.end()
        return ids + self._encode_text(text[text_start:])

    def decode(
        self, ids: Iterable[SupportsIndex], *, skip_special_tokens: bool = True, with_timestamps: bool = False
    ) -> str:
        """Return the text of ids, exactly as it was encoded; spaces are not cleaned up.

        Args:
            ids: Ids of text, special tokens and timestamps in any order.
            skip_special_tokens: Leave out special tokens, and also the previous text after a leading
                ``<|startofprev|>``.
            with_timestamps: Write timestamps as ``<|1.80|>``, each with its own time within the window;
                otherwise they are left out.

        Raises:
            ValueError: If an id is outside of the vocabulary.
        """
        tokens = [operator.index(token) for token in ids]
        outside = [token for token in tokens if not 0 <= token < self.special.vocab_size]
        if outside:
            raise ValueError(
                f"expected ids in [0, {self.special.vocab_size}), got {outside[0]}: "
                f"replace masked labels by <|endoftext|> ({self.special.eot}) before decoding"
            )
        if skip_special_tokens:
            tokens = self._without_previous(tokens)
            tokens = [token for token in tokens if not self.special.is_special(token)]
        text = "".join(self._decode_runs(tokens, skip_special_tokens))
        return text if with_timestamps else strip_timestamp_text(text)

    def prompt(
        self,
        language: str | None,
        task: str | None,
        timestamps: bool,
        previous: Iterable[SupportsIndex] = (),
    ) -> list[int]:
        """Return the ids that precede a transcript in the decoder.

        ::

            [<|startofprev|> previous ...] <|startoftranscript|> [<|en|> <|transcribe|>] [<|notimestamps|>]

        Args:
            language: Name or code, which multilingual vocabularies need. English-only vocabularies have no
                language token, and accept None and English.
            task: ``"transcribe"`` or ``"translate"``; None means transcribe.
            timestamps: Whether the transcript has timestamps. The prompt then ends before the first
                timestamp.
            previous: Ids of the text before this window (text and timestamps), of which the last
                :data:`MAX_PREVIOUS_TOKENS` are used.

        Raises:
            InputError: If language or task are unknown, missing, or not known to this model.
            ValueError: If ``previous`` holds special tokens.
        """
        prompt = [*self._previous(previous), self.special.sot, *self._language_and_task(language, task)]
        return prompt if timestamps else [*prompt, self.special.no_timestamps]

    def _language_and_task(self, language: str | None, task: str | None) -> list[int]:
        task = task or "transcribe"
        if task not in TASKS:
            raise InputError(f"unknown task {task!r}: expected 'transcribe' or 'translate'")
        code = None if language is None else resolve_language(language, self.special.languages)
        if not self.special.is_multilingual:
            if code not in (None, "en"):
                raise InputError(
                    f"language {language!r} with an English-only model: "
                    "use a multilingual checkpoint or leave the language out"
                )
            if task != "transcribe":
                raise InputError(
                    "task 'translate' with an English-only model: "
                    "use a multilingual checkpoint or leave the task out"
                )
            return []
        if code is None:
            raise InputError("a multilingual model needs a language: give one, such as 'en' or 'english'")
        task_token = self.special.transcribe if task == "transcribe" else self.special.translate
        if code not in self.special.languages or task_token is None:
            raise InputError(
                f"this model's vocabulary has no token for language {language!r} and task {task!r}: "
                "use a checkpoint that knows both"
            )
        return [self.special.languages[code], task_token]

    def _previous(self, previous: Iterable[SupportsIndex]) -> list[int]:
        tokens = [operator.index(token) for token in previous]
        strays = [token for token in tokens if self.special.is_special(token)]
        if strays:
            raise ValueError(
                f"expected text and timestamps as previous ids, got the special token {strays[0]}"
            )
        return [self.special.sot_prev, *tokens[-MAX_PREVIOUS_TOKENS:]] if tokens else []

    def _without_previous(self, tokens: list[int]) -> list[int]:
        if tokens[:1] != [self.special.sot_prev]:
            return tokens
        return tokens[tokens.index(self.special.sot) :] if self.special.sot in tokens else []

    def _encode_text(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids if text else []

    def _decode_runs(self, tokens: list[int], skip_special_tokens: bool) -> Iterable[str]:
        """Yield runs of text and timestamps in turn; a timestamp also splits a character of several bytes."""
        run: list[int] = []
        for token in tokens:
            if self.special.is_timestamp(token):
                yield self._backend.decode(run, skip_special_tokens=skip_special_tokens)
                yield timestamp_text(token, self.special)
                run = []
            else:
                run.append(token)
        yield self._backend.decode(run, skip_special_tokens=skip_special_tokens)


@dataclasses.dataclass(frozen=True)
class _Source:
    """The files of a tokenizer, known by their contents wherever they lie."""

    folder: Path = dataclasses.field(compare=False)
    origin: str | None = dataclasses.field(compare=False)
    digest: str | None


@functools.lru_cache(maxsize=4)  # a teacher, its student and all checkpoints of a run have the same one
def _read(source: _Source) -> WhisperTokenizer:
    return WhisperTokenizer(*open_tokenizer(source.folder, origin=source.origin))
