"""The work of an evaluation under the Open ASR Leaderboard's protocol: one checkpoint through its sets."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.data.decoded_example import DecodedExample, DurationLimits
from flax_distil.evaluation.leaderboard.decoding import leaderboard_options
from flax_distil.evaluation.leaderboard.sets import SETS
from flax_distil.evaluation.transcription import ModelEvaluation
from flax_distil.transcription.options import ModeName
from flax_distil.transcription.recordings import RecordingTranscriber, in_batches
from flax_distil.transcription.results import Transcript
from flax_distil.transcription.short_form import ShortFormTranscriber


class LeaderboardEvaluation(ModelEvaluation):
    """One checkpoint at work on the sets, each in its language.

    Time is measured as by the leaderboard: a batch of recordings is decoded to samples, and the clock runs
    from there to their texts; each recording counts an equal share of it. Of a recording of a short-form set
    that is longer than a window of the model, the first window is heard, as there.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._transcribers: dict[tuple[str, bool], RecordingTranscriber] = {}

    def _transcriber_of(self, name: str) -> RecordingTranscriber:
        data_set = SETS[name]
        key = (data_set.language, data_set.is_long)
        if key not in self._transcribers:
            mode: ModeName = "sequential" if data_set.is_long else "short"
            language = data_set.language if self._model.is_multilingual else None
            transcriber = self._make_transcriber(
                self._batch_rows(mode),
                mode=mode,
                options=leaderboard_options(
                    self._config.decoding, language=language, is_long=data_set.is_long
                ),
            )
            self._compile_seconds += transcriber.warm_up()
            self._transcribers[key] = transcriber
        return self._transcribers[key]

    @property
    def _limits(self) -> DurationLimits:
        return DurationLimits(max_seconds=float("inf"))

    def _transcribed(
        self,
        transcriber: RecordingTranscriber,
        recordings: Iterator[tuple[DecodedExample, Float[np.ndarray, " W"]]],
    ) -> Iterator[tuple[DecodedExample, Transcript, float | None]]:
        window = transcriber.generator.config.window_samples
        is_short = isinstance(transcriber, ShortFormTranscriber)
        heard = ((sample, audio[:window] if is_short else audio) for sample, audio in recordings)
        for batch in in_batches(heard, transcriber.batch_size):
            start = time.perf_counter()
            done = list(transcriber.transcribe_recordings(batch))
            share = (time.perf_counter() - start) / len(batch)
            yield from ((sample, transcript, share) for sample, transcript in done)
