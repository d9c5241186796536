"""The decoder prompts of a transcription: what came before, the task, and a forced beginning."""

import operator
from collections.abc import Sequence

from flax_distil.core import InputError
from flax_distil.text import MAX_PREVIOUS_TOKENS, WhisperTokenizer
from flax_distil.transcription.options import TranscriptionOptions


class Prompts:
    """Builds the prompts of one model under one set of options.

    Attributes:
        shortest: tokens of a prompt with neither previous text nor prefix.
        initial: ids of the text that was given as having come before.
        prefix: ids of the forced beginning.
    """

    def __init__(self, tokenizer: WhisperTokenizer, options: TranscriptionOptions):
        """Encode the texts of the options.

        Raises:
            InputError: if the options do not fit the vocabulary (a language or a translation asked of an
                English-only model), or a text is too long.
        """
        self._tokenizer, self._options = tokenizer, options
        special = tokenizer.special
        any_language = options.language or ("en" if special.is_multilingual else None)
        self.shortest = len(tokenizer.prompt(any_language, options.task, options.return_timestamps))
        self.initial = self._initial()
        prefix = (options.prefix or "").strip()
        self.prefix = tuple(tokenizer.encode(f" {prefix}")) if prefix else ()
        if len(self.prefix) > MAX_PREVIOUS_TOKENS:
            raise InputError(
                f"the prefix has {len(self.prefix)} tokens, and at most {MAX_PREVIOUS_TOKENS} "
                "are taken: shorten it"
            )

    def build(
        self, language: str, previous: Sequence[int] = (), *, with_prefix: bool = True
    ) -> tuple[int, ...]:
        """Return a decoder prompt.

        Args:
            language: code; left out for English-only models.
            previous: ids of the text before the window; the last ones are kept.
            with_prefix: end with the forced beginning.
        """
        spoken = language if self._tokenizer.special.is_multilingual else None
        prompt = self._tokenizer.prompt(spoken, self._options.task, self._options.return_timestamps, previous)
        return (*prompt, *(self.prefix if with_prefix else ()))

    def _initial(self) -> tuple[int, ...]:
        text, ids = self._options.prompt, self._options.prompt_ids
        if ids is not None:
            initial = tuple(map(operator.index, ids))
        else:
            initial = tuple(self._tokenizer.encode(f" {text.strip()}")) if text and text.strip() else ()
        strays = [token for token in initial if not 0 <= token < self._tokenizer.special.eot]
        if strays:
            raise InputError(
                f"prompt_ids hold {strays[0]}, which is no id of text in this vocabulary: leave it out"
            )
        if len(initial) > MAX_PREVIOUS_TOKENS:
            raise InputError(
                f"the prompt has {len(initial)} tokens, and at most {MAX_PREVIOUS_TOKENS} "
                "are taken: shorten it"
            )
        return initial
