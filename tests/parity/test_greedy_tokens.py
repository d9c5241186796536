"""The tokens we emit are those that transformers emits, one by one."""

import pytest

from tests.parity.reference import Pair, Recordings, our_tokens, their_tokens


def assert_identical(pair: Pair, recordings: Recordings, *, language: str | None = None):
    ours, theirs = (find(pair, recordings, language=language) for find in (our_tokens, their_tokens))
    differing = [
        f"{text!r} (timestamps {timestamps}): {pair.tokenizer.decode(mine, with_timestamps=True)!r} is not "
        f"{pair.tokenizer.decode(yours, with_timestamps=True)!r}"
        for timestamps in (False, True)
        for text, mine, yours in zip(recordings.texts, ours[timestamps], theirs[timestamps], strict=True)
        if mine != yours
    ]
    assert not differing, "\n".join(differing)
    # Neither is empty, and timestamps are there exactly where they were asked for.
    first = pair.tokenizer.special.timestamp_begin
    assert all(tokens and tokens[0] >= first for tokens in ours[True])
    assert all(tokens and max(tokens) < first for tokens in ours[False])


@pytest.mark.parametrize(
    ("name", "language"), [("tiny_en", None), pytest.param("base", "en", marks=pytest.mark.slow)]
)
def test_prompts_of_all_lengths_are_transcribed_as_transformers_does(request, held_out, name, language):
    assert_identical(request.getfixturevalue(name), held_out.of_all_lengths(5), language=language)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "language"), [("tiny_en", None), ("base", "en")])
def test_every_held_out_prompt_is_transcribed_as_transformers_does(request, held_out, name, language):
    assert_identical(request.getfixturevalue(name), held_out, language=language)
