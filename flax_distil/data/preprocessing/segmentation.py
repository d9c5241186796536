"""Cut rows with long recordings into rows that fit one window of the encoder."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from flax_distil.audio.constants import CHUNK_SECONDS
from flax_distil.audio.reading.decoding import lasts_longer_than
from flax_distil.audio.segmentation import cut_segments, speech_segments
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.data.dataset import DURATION_COLUMN, ID_COLUMN
from flax_distil.data.decoded_example import (
    NO_SPEECH,
    SampleError,
    refuse_malformed,
    row_audio,
    sample_errors,
)
from flax_distil.data.example import Example
from flax_distil.data.skipped import SkippedSamples

SOURCE_ID_COLUMN = "source_id"
"""Column with the id of the recording from which a row was cut."""

OFFSET_COLUMN = "offset_seconds"
"""Column with the start of the row in that recording, in seconds."""


def cut_rows(
    rows: Iterable[Example],
    *,
    detector: VoiceActivity,
    skipped: SkippedSamples,
    text_columns: Collection[str] = (),
) -> Iterator[Example]:
    """Cut recordings of more than 30 s at silence; the same rows give the same pieces, byte for byte.

    A row of at most 30 s, by its ``duration`` or else by its audio, passes unchanged. A longer one
    becomes one row per segment of speech, in order, called ``name@seconds``, with FLAC bytes (16 kHz,
    16 bit) for audio, and with ``id``, ``source_id``, ``offset_seconds`` and ``duration`` among its
    values. Its speaker is kept; without one, the recording is the speaker. A text of the whole recording
    cannot be cut: reference and label are None.

    Args:
        rows: Rows with their audio.
        detector: Detector of speech.
        skipped: Collector of rows without audio, and of recordings that cannot be read or have no speech. A
            recording is read to its end before its first piece is yielded.
        text_columns: Columns with texts of the whole recording, which are None in its pieces.

    Yields:
        Rows of at most 30 s; pieces keep the number of their recording's row.
    """
    for row in rows:
        try:
            if _fits(row):
                yield row
            else:
                yield from _pieces(row, detector, text_columns)
        except SampleError as error:
            skipped.reject(row, error)


def _fits(row: Example) -> bool:
    refuse_malformed(row)
    if row.duration_seconds is not None:
        return row.duration_seconds <= CHUNK_SECONDS
    audio = row_audio(row)
    with sample_errors():
        if audio.fragment is not None:
            return audio.duration() <= CHUNK_SECONDS
        return not lasts_longer_than(float(CHUNK_SECONDS), audio.source, format=audio.format)


def _pieces(row: Example, detector: VoiceActivity, text_columns: Collection[str]) -> Iterator[Example]:
    encoded = row_audio(row)
    with sample_errors():
        audio = encoded.whole()
        options: dict[str, Any] = {"format": audio.format, "channel": audio.channel}
        segments = speech_segments(audio.source, detector, **options)
        if not segments:
            raise SampleError(NO_SPEECH, "no speech was found in it")
        for segment, flac in cut_segments(audio.source, segments, **options):
            sample_id = f"{row.sample_id}@{segment.offset_seconds:.2f}"
            values = {
                **row.values,
                **dict.fromkeys(text_columns),
                ID_COLUMN: sample_id,
                SOURCE_ID_COLUMN: row.sample_id,
                OFFSET_COLUMN: segment.offset_seconds,
                DURATION_COLUMN: segment.duration_seconds,
            }
            yield dataclasses.replace(
                row,
                sample_id=sample_id,
                audio={"bytes": flac, "path": None},
                channel=None,
                reference=None,
                label=None,
                speaker=row.speaker or row.sample_id,
                duration_seconds=segment.duration_seconds,
                values=values,
            )
