"""The decoder prompts of a transcription: previous text, task tokens, and a forced beginning."""

import operator
from collections.abc import Sequence

from flax_distil.core.errors import InputError
from flax_distil.text.tokenizer import MAX_PREVIOUS_TOKENS, WhisperTokenizer
from flax_distil.transcription.options import TranscriptionOptions


class Prompts:
    """Builds the prompts of one model under one set of options.

    Attributes:
        shortest: Tokens of a prompt with neither previous text nor prefix.
        initial: Ids of the text given as previous text, for a first window; empty where every
            prompt has it anyway.
        prefix: Ids of the forced beginning: ``<|0.00|>`` where there are timestamps, and its text.
    """

    def __init__(self, tokenizer: WhisperTokenizer, options: TranscriptionOptions):
        """Encode the texts of the options.

        Raises:
            InputError: If the options do not fit the vocabulary (a language or a translation asked of an
                English-only model), or a text is too long.
        """
        self._tokenizer, self._options = tokenizer, options
        special = tokenizer.special
        any_language = options.language or self.any_language
        self.shortest = len(tokenizer.prompt(any_language, options.task, options.return_timestamps))
        initial = _check_room("prompt", self._initial())
        self._hotwords = _check_room("list of hotwords", self._encode(options.hotwords))
        self._carried = initial if options.carry_initial_prompt else ()
        _check_room("prompt with the hotwords", (*self._hotwords, *self._carried))
        self.initial = () if options.carry_initial_prompt else initial
        self.prefix = _check_room("prefix", self._encode(options.prefix))
        if self.prefix and options.return_timestamps:
            self.prefix = (special.timestamp_begin, *self.prefix)

    @property
    def any_language(self) -> str | None:
        """A language that the vocabulary has, None if it is English-only."""
        languages = self._tokenizer.special.languages
        return "en" if "en" in languages else next(iter(languages), None)

    def build(
        self, language: str, previous: Sequence[int] = (), *, with_prefix: bool = True
    ) -> tuple[int, ...]:
        """Return a decoder prompt.

        Args:
            language: Code; left out for English-only models.
            previous: Ids of the text before the window; the last ones are kept, as many as there is room for
                behind the hotwords and a prompt that is carried.
            with_prefix: End with the forced beginning.
        """
        spoken = language if self._tokenizer.special.is_multilingual else None
        prefix = self.prefix if with_prefix else ()
        carried = (*(() if prefix else self._hotwords), *self._carried)
        room = MAX_PREVIOUS_TOKENS - len(carried)
        before = (*carried, *previous[max(0, len(previous) - room) :])
        prompt = self._tokenizer.prompt(spoken, self._options.task, self._options.return_timestamps, before)
        return (*prompt, *prefix)

    def prefix_length(self, prompt: Sequence[int]) -> int:
        """Return how many tokens at the end of a prompt are the forced beginning."""
        count = len(self.prefix)
        return count if count and tuple(prompt[-count:]) == self.prefix else 0

    def _encode(self, text: str | None) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(f" {text.strip()}")) if text and text.strip() else ()

    def _initial(self) -> tuple[int, ...]:
        ids = self._options.prompt_ids
        if ids is None:
            return self._encode(self._options.prompt)
        initial = tuple(map(operator.index, ids))
        strays = [token for token in initial if not self._tokenizer.special.is_text(token)]
        if strays:
            raise InputError(
                f"prompt_ids hold {strays[0]}, which is no id of text in this vocabulary: leave it out"
            )
        return initial


def _check_room(name: str, tokens: tuple[int, ...]) -> tuple[int, ...]:
    """Return the ids of a text; refuse them if a prompt has no room for them."""
    if len(tokens) > MAX_PREVIOUS_TOKENS:
        raise InputError(
            f"the {name} has {len(tokens)} tokens, and at most {MAX_PREVIOUS_TOKENS} are taken: shorten it"
        )
    return tokens
