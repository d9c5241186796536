"""Which tokens a checkpoint may emit under the options of a transcription."""

import dataclasses

from flax_distil.core.errors import InputError
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.timestamps import TIMESTAMP_STEP_SECONDS
from flax_distil.transcription.options import CHECKPOINT_TOKENS, TranscriptionOptions


def logits_processors_for(
    options: TranscriptionOptions, settings: GenerationSettings, special: SpecialTokens, *, positions: int
) -> LogitsProcessors:
    """Return the logits processors of a checkpoint, with the changes that the options ask for.

    Args:
        options: What to transcribe into, and how.
        settings: Settings of the checkpoint.
        special: Ids of the vocabulary.
        positions: Number of encoder positions of 0.02 s: no later timestamp is emitted.

    Raises:
        InputError: If ``suppress_tokens`` holds what is no id of the vocabulary.
    """
    processors = LogitsProcessors.from_settings(
        settings, special, return_timestamps=options.return_timestamps
    )
    changed = dataclasses.replace(
        processors,
        repetition_penalty=float(options.repetition_penalty),
        no_repeat_ngram_size=options.no_repeat_ngram_size,
    )
    if options.max_initial_timestamp is not None:
        latest = round(options.max_initial_timestamp / TIMESTAMP_STEP_SECONDS)
        changed = dataclasses.replace(changed, max_initial_timestamp_index=latest)
    if options.suppress_tokens is not None:
        suppressed = _suppressed_ids(options.suppress_tokens, settings, special)
        changed = dataclasses.replace(changed, suppress_tokens=suppressed)
    if options.begin_suppress_tokens is not None:
        changed = dataclasses.replace(changed, begin_suppress_tokens=options.begin_suppress_tokens)
    behind = range(special.timestamp_begin + positions + 1, special.timestamp_end)
    if behind and special.timestamp_end <= special.vocab_size:
        tokens = tuple(sorted({*changed.suppress_tokens, *behind}))
        changed = dataclasses.replace(changed, suppress_tokens=tokens)
    return changed


def _suppressed_ids(
    asked: tuple[int, ...], settings: GenerationSettings, special: SpecialTokens
) -> tuple[int, ...]:
    """Return the ids that are never emitted.

    Source: ``DecodingTask._get_suppress_tokens`` of openai/whisper.
    """
    tokens = set(asked) - {CHECKPOINT_TOKENS}
    strays = [token for token in sorted(tokens) if not 0 <= token < special.vocab_size]
    if strays:
        raise InputError(
            f"suppress_tokens hold {strays[0]}, which is no id of this vocabulary of {special.vocab_size}: "
            f"leave it out ({CHECKPOINT_TOKENS} stands for the checkpoint's own list)"
        )
    if CHECKPOINT_TOKENS in asked:
        tokens |= set(settings.suppress_tokens)
    start_of_lm = special.sot_prev - 1
    marks = (
        special.sot,
        special.transcribe,
        special.translate,
        start_of_lm,
        special.sot_prev,
        special.no_speech,
    )
    return tuple(sorted(tokens.union(token for token in marks if token is not None)))
