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


def test_tiny_en_transcribes_every_held_out_prompt_as_transformers_does(tiny_en, held_out):
    assert_identical(tiny_en, held_out)


def test_base_transcribes_prompts_of_all_lengths_as_transformers_does(base, some_held_out):
    assert_identical(base, some_held_out, language="en")


@pytest.mark.slow
def test_base_transcribes_every_held_out_prompt_as_transformers_does(base, held_out):
    assert_identical(base, held_out, language="en")
