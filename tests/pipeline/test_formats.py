"""Files of transcripts are, byte for byte, those that openai/whisper writes of the same segments."""

import dataclasses
import inspect
import io
import itertools
import json
import random
import re

import pytest
import whisper
import whisper.utils

from flax_distil.pipeline.writers.formats import SubtitleOptions, render
from flax_distil.pipeline.writers.write_transcript import write_transcript
from flax_distil.transcription.results import TranscribedSegment, Transcript, Word

SAID = [
    " Well",
    " --",
    " -->",
    " he",
    " said,",
    " 1984,",
    " (or",
    " so)",
    " café",
    " closed\tfor",
    " Über",
    ".",
]


def transcript(draw: random.Random, *, words: bool) -> Transcript:
    """Return segments of some words each, with pauses; some begin shortly before the first hour."""
    segments, now = [], draw.choice([0.0, 0.0, 3590.5])
    for _ in range(draw.randrange(0, 7)):
        said, start = [], round(now, 2)
        for _ in range(draw.randrange(0 if segments else 1, 14)):
            end = round(now + draw.random(), 2)
            said.append(Word(text=draw.choice(SAID), start=round(now, 2), end=end, probability=0.5))
            now = end + draw.choice([0.0, 0.0, 0.3, 4.0])
        segments.append(TranscribedSegment(
            start=start, end=said[-1].end if said else start + 1, text="".join(word.text for word in said),
            tokens=(1,), avg_logprob=-0.5, no_speech_prob=0.1, temperature=0.0,
            words=tuple(said) if words else None,
        ))  # fmt: skip
    return Transcript(
        text="".join(segment.text for segment in segments).strip(), text_with_timestamps=None, tokens=[],
        token_logprobs=[], avg_logprob=-0.5, no_speech_prob=0.1, language="en", segments=tuple(segments),
    )  # fmt: skip


def as_openai(given: Transcript) -> dict:
    segments = []
    for segment in given.segments:
        one = {"start": segment.start, "end": segment.end, "text": segment.text}
        if segment.words is not None:
            one["words"] = [
                {"word": word.text, "start": word.start, "end": word.end} for word in segment.words
            ]
        segments.append(one)
    return {"text": given.text, "segments": segments, "language": given.language}


NAMES = ("max_line_width", "max_line_count", "highlight_words", "max_words_per_line")
OPTIONS = [
    dict(zip(NAMES, values, strict=True))
    for values in itertools.product((None, 12, 42), (None, 1, 2), (False, True), (None, 1, 4))
]  # fmt: skip


@pytest.mark.parametrize("output_format", ["txt", "srt", "vtt", "tsv"])
def test_files_are_those_of_openai_whisper(output_format, tmp_path):
    draw = random.Random(output_format)
    writer = whisper.utils.get_writer(output_format, str(tmp_path))
    longest = 0
    for options, words in itertools.product(OPTIONS, (False, True)):
        given = transcript(draw, words=words)
        file = io.StringIO()
        if given.segments:  # without, theirs is a file with no line at all, and so is ours but for txt
            writer.write_result(as_openai(given), file, options)
            assert render(given, 9999.0, output_format, SubtitleOptions(**options)) == file.getvalue()
        longest = max(longest, len(file.getvalue()))
    assert longest > 200


def test_json_has_the_fields_of_openai_whisper():
    given = transcript(random.Random(1), words=True)
    document = json.loads(render(given, 12.5, "json", SubtitleOptions()))
    assert document["duration"] == 12.5
    assert (document["text"], document["language"]) == (given.text, "en")
    first, word = document["segments"][0], given.segments[0].words[0]
    assert first["words"][0] == {
        "word": word.text, "start": word.start, "end": word.end, "probability": word.probability
    }  # fmt: skip
    theirs = inspect.getsource(whisper.transcribe)
    assert set(first) == {"id", "words", *re.findall(r'^ +"(\w+)": ', _new_segment(theirs), re.MULTILINE)}
    assert list(document)[:3] == ["text", "segments", "language"]


def _new_segment(source: str) -> str:
    """Return the function of OpenAI's code that makes a segment."""
    return source.split("def new_segment(")[1].split("# show the progress bar")[0]


@pytest.mark.parametrize("output_format", ["txt", "srt", "vtt", "tsv"])
def test_results_of_python_are_written_as_those_of_openai(output_format, tmp_path):
    draw = random.Random(7)
    for number, options in enumerate(OPTIONS[::5]):
        given = as_openai(transcript(draw, words=True))
        if given["segments"]:
            path = write_transcript(given, tmp_path / f"{number}.{output_format}", **options)
            file = io.StringIO()
            whisper.utils.get_writer(output_format, str(tmp_path)).write_result(given, file, options)
            assert path.read_text() == file.getvalue()


def test_text_without_an_end_ends_with_the_recording():
    given = transcript(random.Random(3), words=False)
    last = dataclasses.replace(given.segments[-1], end=None)
    given = dataclasses.replace(given, segments=(*given.segments[:-1], last))
    assert render(given, 4242.0, "tsv", SubtitleOptions()).splitlines()[-1].split("\t")[1] == "4242000"


def test_text_without_segments_is_one_line():
    given = dataclasses.replace(transcript(random.Random(3), words=False), segments=(), text="Hello.")
    assert render(given, 1.0, "txt", SubtitleOptions()) == "Hello.\n"
