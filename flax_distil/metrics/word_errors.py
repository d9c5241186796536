"""Word and character errors as sums, which can be added before they are divided.

Means of batch means weigh a short sample like a long one; counts do not. So everything here
is a count until a property divides it: over a batch, a data set, or several processes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class ErrorCounts:
    """Errors of predictions against references; the counts of two sets of samples can be added.

    Rates are in percent of the reference's words (or characters) and NaN while there are
    none. With many insertions they exceed 100.

    Attributes:
        hits: Reference words found.
        substitutions: Reference words replaced by another.
        deletions: Reference words missing.
        insertions: Words that are not in the reference.
        character_hits: Characters that are right; white space does not count.
        character_substitutions: Characters that were replaced.
        character_deletions: Characters that are missing.
        character_insertions: Characters that were added.
        samples: Samples counted.
        skipped: Samples left out because their reference normalizes to nothing.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    character_hits: int = 0
    character_substitutions: int = 0
    character_deletions: int = 0
    character_insertions: int = 0
    samples: int = 0
    skipped: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        """Return the counts of both sets of samples."""
        return ErrorCounts(
            **{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        )

    @property
    def reference_words(self) -> int:
        """Words in the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Wrong words: substituted, deleted or inserted."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_characters(self) -> int:
        """Characters in the references, white space left out."""
        return self.character_hits + self.character_substitutions + self.character_deletions

    @property
    def wer(self) -> float:
        """Word error rate, in percent."""
        return _percent(self.errors, self.reference_words)

    @property
    def cer(self) -> float:
        """Character error rate, in percent."""
        errors = self.character_substitutions + self.character_deletions + self.character_insertions
        return _percent(errors, self.reference_characters)

    @property
    def substitution_rate(self) -> float:
        """Substituted words, in percent of reference words."""
        return _percent(self.substitutions, self.reference_words)

    @property
    def deletion_rate(self) -> float:
        """Deleted words, in percent of reference words."""
        return _percent(self.deletions, self.reference_words)

    @property
    def insertion_rate(self) -> float:
        """Inserted words, in percent of reference words: high where a model hallucinates."""
        return _percent(self.insertions, self.reference_words)


def word_errors(
    references: Sequence[str], predictions: Sequence[str], normalize: Callable[[str], str]
) -> ErrorCounts:
    """Count the errors of predictions under a normalizer.

    Samples whose reference normalizes to nothing are left out and counted in ``skipped``: they
    have no words to be a percentage of.

    White space does not count as a character: normalizers of languages without spaces put one
    between all characters, which would halve the character error rate.

    Args:
        references: Whole reference transcripts.
        predictions: One prediction for each reference.
        normalize: Applied to both; for orthographic errors, one that keeps casing and punctuation.

    Raises:
        ValueError: If there are not as many predictions as references.
    """
    if len(references) != len(predictions):
        raise ValueError(
            f"expected one prediction per reference, got {len(predictions)} for {len(references)}"
        )
    pairs = [
        (normalize(reference).split(), normalize(prediction).split())
        for reference, prediction in zip(references, predictions, strict=True)
    ]
    scored = [pair for pair in pairs if pair[0]]
    counts = ErrorCounts(samples=len(scored), skipped=len(pairs) - len(scored))
    if not scored:
        return counts
    # Imported here: it builds a command line on import, which only scoring should pay for.
    import jiwer

    words = jiwer.process_words(
        [" ".join(reference) for reference, _ in scored], [" ".join(prediction) for _, prediction in scored]
    )
    characters = jiwer.process_characters(
        ["".join(reference) for reference, _ in scored], ["".join(prediction) for _, prediction in scored]
    )
    return counts + ErrorCounts(
        hits=words.hits,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        character_hits=characters.hits,
        character_substitutions=characters.substitutions,
        character_deletions=characters.deletions,
        character_insertions=characters.insertions,
    )


def sample_wer(reference: str, prediction: str, normalize: Callable[[str], str]) -> float | None:
    """Return the word error rate of one sample in percent; None if its reference normalizes to nothing."""
    counts = word_errors([reference], [prediction], normalize)
    return counts.wer if counts.samples else None


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else math.nan
