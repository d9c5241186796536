"""Results of the pipeline as files: subtitles, tables, text, JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.pipeline.config import SubtitleOptions
from flax_distil.pipeline.writers.formats import WRITERS, render
from flax_distil.storage.paths import write_whole
from flax_distil.transcription.results import TranscribedSegment, Transcript, Word


def write_transcript(
    result: Mapping[str, Any],
    path: str | Path,
    *,
    output_format: str | None = None,
    max_line_width: int | None = None,
    max_line_count: int | None = None,
    highlight_words: bool = False,
    max_words_per_line: int | None = None,
) -> Path:
    """Write a result of the pipeline as openai/whisper would, byte for byte.

    Args:
        result: Result of a call with ``return_segments=True`` (or of openai/whisper, which has the same
            fields), or with ``return_timestamps=True``; without either it can only be written as text.
        path: Path of the file, in a folder that exists.
        output_format: txt, srt, vtt, tsv or json; by default the ending of the path.
        max_line_width: Maximum number of characters of a line of subtitles. This and the next three lay out
            words, and need ``return_timestamps="word"`` beside ``return_segments``.
        max_line_count: Maximum number of lines of a subtitle, with ``max_line_width``.
        highlight_words: Underline each word as it is spoken, with one subtitle for each word.
        max_words_per_line: Maximum number of words of a line, where ``max_line_width`` is not given.

    Returns:
        The path.

    Raises:
        InputError: If the format is unknown, or the result has no times for it.
        OSError: If the file cannot be written.

    Source: openai/whisper, ``utils.get_writer``.
    """
    path = Path(path)
    output_format = output_format or path.suffix.removeprefix(".").lower()
    if output_format not in WRITERS:
        raise InputError(f"output_format {output_format!r} is unknown: expected one of {', '.join(WRITERS)}")
    transcript = _transcript(result)
    if not transcript.segments and transcript.text and output_format not in ("txt", "json"):
        raise InputError(f"a result without times cannot be written as {output_format}: add return_segments")
    options = SubtitleOptions(
        max_line_width=max_line_width,
        max_line_count=max_line_count,
        highlight_words=highlight_words,
        max_words_per_line=max_words_per_line,
    )
    last = next((segment.end for segment in reversed(transcript.segments) if segment.end is not None), 0.0)
    write_whole(path, render(transcript, result.get("duration", last), output_format, options))
    return path


def _transcript(result: Mapping[str, Any]) -> Transcript:
    segments = [_segment(segment) for segment in result.get("segments", ())] or [
        _segment({"text": chunk["text"], "start": chunk["timestamp"][0], "end": chunk["timestamp"][1]})
        for chunk in result.get("chunks", ())
    ]
    return Transcript(
        text=result["text"],
        text_with_timestamps=None,
        tokens=[token for segment in segments for token in segment.tokens],
        token_logprobs=[],
        avg_logprob=0.0,
        no_speech_prob=0.0,
        language=result.get("language", "en"),
        segments=tuple(segments),
    )


def _segment(given: Mapping[str, Any]) -> TranscribedSegment:
    words = given.get("words")
    return TranscribedSegment(
        start=float(given["start"] or 0.0),
        end=None if given["end"] is None else float(given["end"]),
        text=given["text"],
        tokens=tuple(given.get("tokens", ())),
        avg_logprob=given.get("avg_logprob", 0.0),
        no_speech_prob=given.get("no_speech_prob", 0.0),
        temperature=given.get("temperature", 0.0),
        compression_ratio=given.get("compression_ratio", 0.0),
        seek=given.get("seek", 0),
        words=None if words is None else tuple(map(_word, words)),
    )


def _word(given: Mapping[str, Any]) -> Word:
    return Word(
        text=given["word"],
        start=float(given["start"]),
        end=float(given["end"]),
        probability=float(given.get("probability", 0.0)),
    )
