"""Align a prediction with its reference, word by word."""

from collections.abc import Callable
from typing import Literal, NamedTuple, cast

DiffKind = Literal["equal", "substitute", "delete", "insert"]


class DiffPart(NamedTuple):
    """Neighbouring words with the same kind of difference.

    Attributes:
        kind: What happened to them.
        reference: Words of the reference; none where words were inserted.
        prediction: Words of the prediction; none where words were deleted.
    """

    kind: DiffKind
    reference: tuple[str, ...]
    prediction: tuple[str, ...]


def word_diff(reference: str, prediction: str, normalize: Callable[[str], str]) -> list[DiffPart]:
    """Return an alignment with the fewest errors, the same one that error counts come from.

    Args:
        reference: Whole reference transcript.
        prediction: The predicted text.
        normalize: Applied to both.
    """
    reference_words, predicted_words = normalize(reference).split(), normalize(prediction).split()
    if not reference_words:
        return [DiffPart("insert", (), tuple(predicted_words))] if predicted_words else []
    import jiwer  # slow to import, as in word_errors

    (chunks,) = jiwer.process_words(" ".join(reference_words), " ".join(predicted_words)).alignments
    return [
        DiffPart(
            cast(DiffKind, chunk.type),
            tuple(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            tuple(predicted_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in chunks
    ]
