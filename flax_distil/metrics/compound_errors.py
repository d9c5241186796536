"""Word errors as the Open ASR Leaderboard counts them: one word may be written as several."""

import difflib
from collections.abc import Callable

from flax_distil.metrics.word_errors import ErrorCounts


def compound_errors(
    reference: str, prediction: str, normalize: Callable[[str], str], *, join_first: bool = False
) -> ErrorCounts:
    """Count the word errors of a prediction; words that only differ by spaces between them are right.

    Args:
        reference: Whole reference transcript.
        prediction: Whole prediction.
        normalize: Applied to both.
        join_first: Join such words in both texts before they are aligned, as the leaderboard does for every
            language but English. A compound then counts as one word of the reference.

    Returns:
        Counts of words; characters are not counted. A reference without words is a sample whose predicted
        words are insertions, since the leaderboard's scorer leaves nothing out.

    Source: ``edit_distance`` of kaldialign with ``merge_compounds``.
    """
    from kaldialign import edit_distance

    words, predicted = normalize(reference).split(), normalize(prediction).split()
    if join_first:
        words, predicted = _join_same_letters(words, predicted)
    counts = edit_distance(words, predicted, merge_compounds=True)
    return ErrorCounts(
        hits=counts["ref_len"] - counts["sub"] - counts["del"],
        substitutions=counts["sub"],
        deletions=counts["del"],
        insertions=counts["ins"],
        samples=1,
    )


def _join_same_letters(reference: list[str], prediction: list[str]) -> tuple[list[str], list[str]]:
    """Join the words of both texts wherever they differ and have the same letters in the same order."""
    joined: tuple[list[str], list[str]] = ([], [])
    matcher = difflib.SequenceMatcher(None, reference, prediction)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        parts = reference[start:end], prediction[other_start:other_end]
        letters = "".join(parts[0])
        is_split = kind != "equal" and letters == "".join(parts[1])
        for words, part in zip(joined, parts, strict=True):
            words.extend([letters] if is_split else part)
    return joined
