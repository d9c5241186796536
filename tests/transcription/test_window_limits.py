"""A text cut at its limit is warned of, once."""

import logging

from flax_distil.transcription.decoding_request import (
    DecodingRequest,
    DecodingResult,
    LimitWarning,
)


def result(tokens: int, *, ended: bool) -> DecodingResult:
    return DecodingResult(
        tokens=(5,) * tokens, token_logprobs=(-0.1,) * (tokens + ended), avg_logprob=-0.1,
        no_speech_prob=0.0, temperature=0.0,
    )  # fmt: skip


def test_a_text_that_ends_itself_is_within_its_limit():
    assert not result(7, ended=True).reached_limit
    assert result(7, ended=False).reached_limit
    assert not result(0, ended=False).reached_limit  # a row that was idle


def test_windows_at_their_limit_are_warned_of_once(caplog):
    warning = LimitWarning()
    asked = [DecodingRequest(prompt=(1,))] * 2
    with caplog.at_level(logging.WARNING):
        warning.check(asked, [result(7, ended=True), None])
        warning.check([DecodingRequest(prompt=(1,), limit=1)], [result(1, ended=False)])
        assert not caplog.records
        warning.check(asked, [result(7, ended=True), result(128, ended=False)])
        warning.check(asked, [result(128, ended=False)] * 2)
    [record] = caplog.records
    assert "ends at its limit of 128 tokens" in record.getMessage()
