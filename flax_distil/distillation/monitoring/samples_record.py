"""The file ``samples.json``: which training samples were dropped and skipped, and why."""

import json
import logging
from typing import Any

from flax_distil.core.failures import short_reason
from flax_distil.data.preprocessing.drop_report import DropReport
from flax_distil.data.skipped import SkippedSamples
from flax_distil.storage.paths import AnyPath, write_whole
from flax_distil.storage.retries import StorageError

log = logging.getLogger(__name__)

SAMPLES_NAME = "samples.json"

_LISTED_SAMPLES = 100


def write_samples_record(folder: AnyPath, dropped: DropReport, skipped: SkippedSamples) -> None:
    """Replace the file; a failure is logged, and ends nothing.

    Args:
        folder: The ``output_dir`` of the run.
        dropped: What the filters kept and dropped, as rows and seconds by data set and reason.
        skipped: Samples that could not be used; the first hundred are listed.
    """
    listed = [
        {"id": sample.sample_id, "kind": sample.kind, "reason": sample.reason}
        for sample in skipped.samples()[:_LISTED_SAMPLES]
    ]
    content: dict[str, Any] = {
        "dropped": dropped.get_state(),
        "skipped": {"counts": skipped.counts(), "samples": listed},
    }
    try:
        write_whole(folder / SAMPLES_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except (OSError, StorageError) as error:
        log.warning("%s is not written (%s)", SAMPLES_NAME, short_reason(error))
