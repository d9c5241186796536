"""Generation settings that a checkpoint stores: language, task, suppressed tokens, limits, alignment heads.

Three kinds of files hold them, each with its own names: ``generation_config.json`` (Hugging Face),
    ``config.json`` of older Hugging Face checkpoints, and ``config.json`` of CTranslate2.
Token ids that the tokenizer also defines (start, end, languages) are not kept here: they are written from
:class:`SpecialTokens`, so that the two can never disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.fields import (
    Fields,
    check_fields,
    either,
    list_of,
    map_to,
    of_type,
    one_of,
    whole_number,
)
from flax_distil.core.json_files import read_json
from flax_distil.text.languages import resolve_language
from flax_distil.text.special_tokens import TIMESTAMP_COUNT, SpecialTokens

DEFAULT_MAX_INITIAL_TIMESTAMP_INDEX = 50
"""Index of the latest first timestamp of a window: 1.00 s."""

TASKS = ("transcribe", "translate")

DEFAULT_MAX_LENGTH = 448
"""Number of decoder positions of every published model."""

# Names of each setting in the three kinds of files, the preferred name first.
_NAMES = {
    "suppress_tokens": ("suppress_tokens", "suppress_ids"),
    "begin_suppress_tokens": ("begin_suppress_tokens", "suppress_ids_begin"),
}


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Generation settings of one checkpoint.

    Attributes:
        suppress_tokens: Ids of tokens that are never generated.
        begin_suppress_tokens: Ids of tokens that are not generated as the first one of a transcript.
        max_initial_timestamp_index: Latest possible first timestamp, in steps of 0.02 s; None for no limit.
        max_length: Maximum length of a decoder sequence, including the prompt.
        alignment_heads: (decoder layer, head) pairs whose cross-attention follows the speech;
            word timestamps are read from them. Empty if unknown.
        is_multilingual: Whether prompts name a language and a task.
        language: Code of the default language; None if the language is detected by default.
        task: The default task; None means "transcribe".
    """

    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    max_initial_timestamp_index: int | None = DEFAULT_MAX_INITIAL_TIMESTAMP_INDEX
    max_length: int = DEFAULT_MAX_LENGTH
    alignment_heads: tuple[tuple[int, int], ...] = ()
    is_multilingual: bool
    language: str | None = None
    task: str | None = None

    @classmethod
    def from_dict(
        cls, contents: Mapping[str, Any], special: SpecialTokens, *, name: str = "generation settings"
    ) -> "GenerationSettings":
        """Return the settings in the fields of any of the three kinds of files.

        Args:
            contents: The parsed JSON; unknown fields are ignored, null counts as absent.
                ``forced_decoder_ids`` of older files stands for ``language`` and ``task``.
            special: Special tokens of the checkpoint's vocabulary.
            name: Name of the file in messages.

        Raises:
            InputError: If a field has the wrong form or names tokens that the vocabulary does not have;
                all faulty fields are named.
        """
        check_fields(contents, _fields(special), name=name)
        given = {name: value for name, value in contents.items() if value is not None}
        no_limit = "max_initial_timestamp_index" in contents

        def tokens(field: str) -> tuple[int, ...]:
            return tuple(next((given[name] for name in _NAMES[field] if name in given), ()))

        settings = cls(
            suppress_tokens=tokens("suppress_tokens"),
            begin_suppress_tokens=tokens("begin_suppress_tokens"),
            max_initial_timestamp_index=given.get(
                "max_initial_timestamp_index", None if no_limit else DEFAULT_MAX_INITIAL_TIMESTAMP_INDEX
            ),
            max_length=given.get("max_length", DEFAULT_MAX_LENGTH),
            alignment_heads=tuple((layer, head) for layer, head in given.get("alignment_heads", ())),
            is_multilingual=special.is_multilingual,
        )
        return replace(settings, **_default_language_and_task(given, special, name))

    @classmethod
    def from_folder(
        cls, folder: Path | str, special: SpecialTokens, *, origin: str | None = None
    ) -> "GenerationSettings":
        """Read the settings of a checkpoint folder, Hugging Face or CTranslate2.

        Only ``generation_config.json`` is read where it exists, otherwise ``config.json``; a folder
        with neither gets the defaults.

        Args:
            folder: Folder of the checkpoint.
            special: Special tokens of the vocabulary.
            origin: Name of the checkpoint in messages; by default its path.

        Raises:
            InputError: If the file is not JSON or a field has the wrong form.
        """
        for name in ("generation_config.json", "config.json"):
            path = Path(folder) / name
            called = str(path) if origin is None else f"{name} of {origin}"
            contents = read_json(path, name=called)
            if contents is None:
                continue
            # A model's max_length of 20 in an old config.json is a library default, not Whisper's.
            if name == "config.json":
                contents.pop("max_length", None)
            return cls.from_dict(contents, special, name=called)
        return cls(is_multilingual=special.is_multilingual)

    def to_dict(self, special: SpecialTokens) -> dict[str, Any]:
        """Return the contents of ``generation_config.json``, with the names of Hugging Face.

        Args:
            special: Special tokens of the vocabulary, from which ids such as those of start and end are
                written.
        """
        contents: dict[str, Any] = {
            "alignment_heads": [list(pair) for pair in self.alignment_heads],
            "begin_suppress_tokens": list(self.begin_suppress_tokens),
            "bos_token_id": special.eot,
            "decoder_start_token_id": special.sot,
            "eos_token_id": special.eot,
            "is_multilingual": self.is_multilingual,
            "max_initial_timestamp_index": self.max_initial_timestamp_index,
            "max_length": self.max_length,
            "no_timestamps_token_id": special.no_timestamps,
            "pad_token_id": special.eot,
            "prev_sot_token_id": special.sot_prev,
            "return_timestamps": False,
            "suppress_tokens": list(self.suppress_tokens),
        }
        if self.is_multilingual:
            contents["lang_to_id"] = {f"<|{code}|>": token for code, token in special.languages.items()}
            contents["task_to_id"] = {"transcribe": special.transcribe, "translate": special.translate}
            chosen = {"language": self.language, "task": self.task}
            contents |= {name: value for name, value in chosen.items() if value is not None}
        return contents


def default_alignment_heads(decoder_layers: int, attention_heads: int) -> tuple[tuple[int, int], ...]:
    """Return all heads of the second half of the layers, as openai/whisper does for unknown models."""
    later = range(decoder_layers // 2, decoder_layers)
    return tuple((layer, head) for layer in later for head in range(attention_heads))


def _fields(special: SpecialTokens) -> Fields:
    """Return the kind of each setting of a checkpoint with this vocabulary."""
    token = whole_number(0, special.vocab_size - 1)
    return {
        **{name: list_of(token) for names in _NAMES.values() for name in names},
        "max_initial_timestamp_index": whole_number(0, TIMESTAMP_COUNT - 1),
        "max_length": whole_number(1, 2**31 - 1),
        "alignment_heads": list_of(list_of(whole_number(0, 2**16), length=2)),
        "language": of_type(str, "the name or the code of a language"),
        "task": one_of(*TASKS),
        "forced_decoder_ids": list_of(list_of(either(token, one_of(None)), length=2)),
        "lang_to_id": map_to(whole_number(0, 2**31 - 1)),
    }


def _default_language_and_task(given: Mapping[str, Any], special: SpecialTokens, name: str) -> dict[str, Any]:
    """Return the default language and task of a checkpoint.

    Source: transformers, ``WhisperGenerationMixin._retrieve_init_tokens``.
    """
    if not special.is_multilingual:
        return {}
    if "language" not in given and "task" not in given:
        forced = {token for _, token in given.get("forced_decoder_ids", ())}
        codes = (code for code, token in special.languages.items() if token in forced)
        tasks = (task for task in TASKS if getattr(special, task) in forced)
        return {"language": next(codes, None), "task": next(tasks, None)}
    language = given.get("language")
    try:
        code = None if language is None else resolve_language(language, special.languages)
    except InputError as error:
        raise InputError(f"the default language of {name}: {error}") from error
    return {"language": code, "task": given.get("task")}
