"""Transcripts as files: plain text, subtitles, tables and JSON, in the forms of openai/whisper."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flax_distil.pipeline.config import SubtitleOptions
from flax_distil.transcription.results import TranscribedSegment, Transcript, Word

NO_LIMIT = 1000
"""Maximum number of characters or words of a line where none is given."""

LONG_PAUSE_SECONDS = 3.0
"""A longer pause ends a subtitle where ``max_line_count`` is given."""


def render(transcript: Transcript, seconds: float, output_format: str, options: SubtitleOptions) -> str:
    """Return the contents of a file.

    Args:
        transcript: Transcript of a recording.
        seconds: Length of the recording; a segment without an end ends there.
        output_format: One of ``WRITERS``.
        options: How subtitles are laid out.

    Source: openai/whisper, ``utils.get_writer``; JSON has fields of our own as well.
    """
    segments = tuple(
        segment if segment.end is not None else dataclasses.replace(segment, end=seconds)
        for segment in transcript.segments
    )
    return WRITERS[output_format](dataclasses.replace(transcript, segments=segments), seconds, options)


def timestamp(seconds: float, *, with_hours: bool, decimal_mark: str) -> str:
    """Return a time as ``[hh:]mm:ss.mmm``; without ``with_hours``, hours are left out where they are 0."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours:02d}:" if with_hours or hours else ""
    return f"{shown}{minutes:02d}:{milliseconds // 1000:02d}{decimal_mark}{milliseconds % 1000:03d}"


def _txt(transcript: Transcript, _: float, __: SubtitleOptions) -> str:
    lines = [segment.text for segment in transcript.segments] or [transcript.text]
    return "".join(f"{line.strip()}\n" for line in lines)


def _tsv(transcript: Transcript, _: float, __: SubtitleOptions) -> str:
    rows = ["start\tend\ttext"]
    for segment in transcript.segments:
        text = segment.text.strip().replace("\t", " ")
        rows.append(f"{round(1000 * segment.start)}\t{round(1000 * _end(segment))}\t{text}")
    return "".join(f"{row}\n" for row in rows)


def _vtt(transcript: Transcript, _: float, options: SubtitleOptions) -> str:
    shown = _subtitles(
        transcript.segments, options, lambda t: timestamp(t, with_hours=False, decimal_mark=".")
    )
    return "WEBVTT\n\n" + "".join(f"{start} --> {end}\n{text}\n\n" for start, end, text in shown)


def _srt(transcript: Transcript, _: float, options: SubtitleOptions) -> str:
    shown = _subtitles(
        transcript.segments, options, lambda t: timestamp(t, with_hours=True, decimal_mark=",")
    )
    return "".join(
        f"{number}\n{start} --> {end}\n{text}\n\n" for number, (start, end, text) in enumerate(shown, 1)
    )


def _json(transcript: Transcript, seconds: float, _: SubtitleOptions) -> str:
    document: dict[str, Any] = {
        "text": transcript.text,
        "segments": segment_documents(transcript.segments),
        "language": transcript.language,
        "language_probability": transcript.language_probability,
        "duration": seconds,
    }
    for field in dataclasses.fields(transcript):
        value = getattr(transcript, field.name)
        document.setdefault(field.name, dict(value) if isinstance(value, Mapping) else value)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def segment_documents(segments: Iterable[TranscribedSegment]) -> list[dict[str, Any]]:
    """Return segments with the fields of openai/whisper's results, in their order."""
    documents = []
    for number, segment in enumerate(segments):
        document: dict[str, Any] = {
            "id": number,
            "seek": segment.seek,
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": list(segment.emitted_tokens or segment.tokens),
            "temperature": segment.temperature,
            "avg_logprob": segment.avg_logprob,
            "compression_ratio": segment.compression_ratio,
            "no_speech_prob": segment.no_speech_prob,
        }
        if segment.words is not None:
            document["words"] = [
                {"word": word.text, "start": word.start, "end": word.end, "probability": word.probability}
                for word in segment.words
            ]
        if segment.channel is not None:
            document["channel"] = segment.channel
        documents.append(document)
    return documents


WRITERS: dict[str, Callable[[Transcript, float, SubtitleOptions], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "json": _json,
}
"""Functions that write a format; the format is also the ending of the file's name."""


def _subtitles(
    segments: Sequence[TranscribedSegment], options: SubtitleOptions, shown: Callable[[float], str]
) -> Iterator[tuple[str, str, str]]:
    """Yield the start, the end and the text of each subtitle."""
    if not any(segment.words is not None for segment in segments):
        for segment in segments:
            text = segment.text.strip().replace("-->", "->")
            yield shown(segment.start), shown(_end(segment)), text
        return
    for words in _filled(segments, options):
        start, end = shown(words[0].start), shown(words[-1].end)
        if options.highlight_words:
            yield from _highlighted(words, shown)
        else:
            yield start, end, "".join(word.text for word in words)


def _highlighted(words: Sequence[Word], shown: Callable[[float], str]) -> Iterator[tuple[str, str, str]]:
    """Yield one subtitle per word, and one for each pause between words."""
    texts = [word.text for word in words]
    last = shown(words[0].start)
    for index, word in enumerate(words):
        start, end = shown(word.start), shown(word.end)
        if start != last:
            yield last, start, "".join(texts)
        bare = word.text.lstrip()
        underlined = f"{word.text[: len(word.text) - len(bare)]}<u>{bare}</u>"
        yield start, end, "".join([*texts[:index], underlined, *texts[index + 1 :]])
        last = end


def _filled(segments: Sequence[TranscribedSegment], options: SubtitleOptions) -> Iterator[list[Word]]:
    """Yield the words of each subtitle; the first word of a new line begins with a line feed, not a space."""
    counted = options.max_line_count is not None and options.max_line_width is not None
    width = options.max_line_width or NO_LIMIT
    subtitle: list[Word] = []
    line_length, lines, last = 0, 1, _first_time(segments)
    for begins_group, word in _grouped(segments, options.max_words_per_line or NO_LIMIT):
        pause = counted and word.start - last > LONG_PAUSE_SECONDS
        new_group = begins_group and bool(subtitle) and not counted
        if line_length and line_length + len(word.text) <= width and not pause and not new_group:
            line_length += len(word.text)
        else:
            text = word.text.strip()
            full = options.max_line_count is not None and (pause or lines >= options.max_line_count)
            if new_group or (subtitle and full):
                yield subtitle
                subtitle, lines = [], 1
            elif line_length:
                lines += 1
                text = f"\n{text}"
            line_length = len(text.strip())
            word = dataclasses.replace(word, text=text)
        subtitle.append(word)
        last = word.start
    if subtitle:
        yield subtitle


def _grouped(segments: Iterable[TranscribedSegment], size: int) -> Iterator[tuple[bool, Word]]:
    """Yield each word, and whether it is the first of a group of ``size`` words of its segment."""
    for segment in segments:
        for number, word in enumerate(segment.words or ()):
            yield number % size == 0, word


def _first_time(segments: Sequence[TranscribedSegment]) -> float:
    words = itertools.chain.from_iterable(segment.words or () for segment in segments)
    return next((word.start for word in words), segments[0].start)


def _end(segment: TranscribedSegment) -> float:
    assert segment.end is not None
    return segment.end
