"""Samples of an evaluation that a run keeps: the worst, and the same ones each time."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flax_distil.data.training.batches import Batch
from flax_distil.metrics.word_diff import word_diff
from flax_distil.metrics.word_errors import ErrorCounts, word_errors
from flax_distil.storage.output_dir import make_folder
from flax_distil.storage.paths import AnyPath, read_text, write_whole

EVALUATIONS_NAME = "evaluations"
"""Folder in the ``output_dir`` of a run; it holds a file ``step-N.jsonl`` for each evaluation."""

FOLLOWED_SAMPLES = 20
"""The first samples of a data set, which are kept at each evaluation."""

WORST_SAMPLES = 40
"""Samples with the most errors that are kept besides."""

_LONGEST_TEXT = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the student says about one sample.

    Attributes:
        id: Name of the sample.
        reference: Its reference text; texts beyond 2000 characters are cut.
        hypothesis: What the student says.
        errors: Words that were replaced, left out or added, after normalization.
        words: Words of the reference.
        position: Place of the sample in its data set.
        diff: The alignment of the normalized texts: kind ("equal", "substitute", "delete" or "insert"), words
            of the reference, words of the hypothesis; empty until it is made.
    """

    id: str
    reference: str
    hypothesis: str
    errors: int
    words: int
    position: int
    diff: Sequence[tuple[str, str, str]] = ()

    def with_diff(self, normalize: Callable[[str], str]) -> "Prediction":
        """Return it with the alignment of both texts."""
        parts = word_diff(self.reference, self.hypothesis, normalize)
        diff = [(part.kind, " ".join(part.reference), " ".join(part.prediction)) for part in parts]
        return dataclasses.replace(self, diff=diff)


def batch_predictions(
    batch: Batch, hypotheses: Sequence[str], normalize: Callable[[str], str]
) -> tuple[ErrorCounts, list[Prediction]]:
    """Compare the transcripts of a batch with its references.

    Args:
        batch: A batch of an evaluation set, on the host.
        hypotheses: A transcript for each of its rows.
        normalize: Normalizer of transcripts and references.

    Returns:
        The errors of all rows, and each row without its alignment.
    """
    errors, found = ErrorCounts(), []
    rows = zip(batch.ids, batch.index_B, batch.references, hypotheses, batch.valid_B, strict=True)
    for sample, index, reference, hypothesis, is_valid in rows:
        if not is_valid:
            continue
        counts = word_errors([reference], [hypothesis], normalize)
        errors += counts
        found.append(
            Prediction(
                id=sample,
                reference=reference[:_LONGEST_TEXT],
                hypothesis=hypothesis[:_LONGEST_TEXT],
                errors=counts.errors,
                words=counts.reference_words,
                position=int(index),
            )
        )
    return errors, found


def kept_predictions(found: Iterable[Prediction]) -> list[Prediction]:
    """Return the first samples in order, and the worst of the others, the worst first."""
    ordered = sorted(found, key=lambda sample: (sample.position, sample.id))
    first, others = ordered[:FOLLOWED_SAMPLES], ordered[FOLLOWED_SAMPLES:]
    others = sorted((sample for sample in others if sample.errors), key=lambda sample: -sample.errors)
    return first + others[:WORST_SAMPLES]


def write_predictions(folder: AnyPath, step: int, by_set: dict[str, list[Prediction]]) -> None:
    """Write what an evaluation keeps, a line per sample.

    Args:
        folder: The ``output_dir`` of the run.
        step: Number of updates before the evaluation.
        by_set: The kept samples of each evaluation set.

    Raises:
        OSError: If it cannot be written.
        StorageError: If it cannot be written to a bucket.
    """
    lines = [
        json.dumps({"data_set": name, **dataclasses.asdict(sample)}, ensure_ascii=False)
        for name, samples in by_set.items()
        for sample in samples
    ]
    make_folder(folder / EVALUATIONS_NAME)
    write_whole(folder / EVALUATIONS_NAME / _file_name(step), "".join(f"{line}\n" for line in lines))


def read_predictions(folder: AnyPath, step: int) -> dict[str, list[Prediction]]:
    """Return what the evaluation of a step kept, by data set; {} if there is no such file."""
    path = folder / EVALUATIONS_NAME / _file_name(step)
    found: dict[str, list[Prediction]] = {}
    for line in read_text(path).splitlines() if path.is_file() else []:
        fields: dict[str, Any] = json.loads(line)
        name = fields.pop("data_set")
        fields["diff"] = [tuple(part) for part in fields["diff"]]
        found.setdefault(name, []).append(Prediction(**fields))
    return found


def _file_name(step: int) -> str:
    return f"step-{step}.jsonl"
