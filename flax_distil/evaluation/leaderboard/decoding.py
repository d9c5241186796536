"""How the Open ASR Leaderboard decodes Whisper: greedily, in a given language, every token allowed."""

from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten
from flax_distil.transcription.options import OFF, TranscriptionOptions


def leaderboard_options(
    given: TranscriptionOptions, *, language: str | None, is_long: bool = False
) -> TranscriptionOptions:
    """Return the options under which sets of the leaderboard are transcribed.

    Long recordings are decoded window after window, by timestamps, without thresholds or other temperatures.

    Args:
        given: What the user chose, of which the limit of tokens counts.
        language: Whisper's code; None where the model has no choice or several languages are measured.
        is_long: Whether recordings are longer than a window.

    Raises:
        InputError: If something else is given that would change the decoding.
    """
    limit = given.max_new_tokens
    free = TranscriptionOptions(max_new_tokens=limit, seed=given.seed)
    for (name, value), usual in zip(flatten(given).items(), flatten(free).values(), strict=True):
        if value != usual:
            raise InputError(
                f"{name} is given, and protocol open_asr_leaderboard decodes greedily, in the language of "
                f"each set: leave {name} out"
            )
    return TranscriptionOptions(
        language=language,
        task="transcribe",
        max_new_tokens=limit,
        seed=given.seed,
        temperature=(0.0,),
        suppress_tokens=(),
        begin_suppress_tokens=(),
        return_timestamps=is_long,
        compression_ratio_threshold=OFF,
        token_compression_ratio_threshold=OFF,
        logprob_threshold=OFF,
        no_speech_threshold=OFF,
    )
