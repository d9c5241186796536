"""The folder of an evaluation: each recording is a line there as soon as it is transcribed.

All figures are computed from these lines.
"""

import hashlib
import re
import tempfile
from types import TracebackType
from urllib.parse import quote

from flax_distil.evaluation.records import Records, decode_record
from flax_distil.storage.line_files import LineWriter, read_lines
from flax_distil.storage.paths import AnyPath, matching, remove_tree
from flax_distil.storage.resumable_output import ResumableOutput

RESULTS_NAME, SAMPLES_NAME, REPORT_NAME = REPORTS = ("results.json", "predictions.csv", "report.html")
"""Files that are made from the lines once all are there."""

LEADERBOARD_NAME = "open_asr_leaderboard"
"""Folder of manifests and results for the Hub, under the protocol of that name."""

LONGEST_NAME = 200
"""Maximum number of characters in the name of a folder; file systems accept 255 bytes."""

Key = tuple[str, ...]
"""Model, data set and noise condition that records belong to, or ``LATENCY`` instead of the condition."""


class EvaluationOutput(ResumableOutput):
    """Output folder of an evaluation, or a temporary folder that is removed when the context ends.

    Args:
        output_dir: Folder as the user gave it; None for a temporary folder.
        overwrite: Whether the results of an earlier run are replaced.

    Attributes:
        is_kept: Whether the folder stays.
    """

    contents = "an evaluation"
    work_name = "predictions"
    state_name = "settings.json"
    results = (*REPORTS, f"{LEADERBOARD_NAME}/*/*.jsonl", f"{LEADERBOARD_NAME}/*/.eval_results/*.yaml")

    def __init__(self, output_dir: str | None, *, overwrite: bool):
        self.is_kept = output_dir is not None
        folder = tempfile.mkdtemp(prefix="flax-distil-") if output_dir is None else output_dir
        super().__init__(folder, overwrite=overwrite)

    def __enter__(self) -> "EvaluationOutput":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_kept:
            remove_tree(self.folder)

    def records(self, key: Key, *, process: int = 0, processes: int = 1) -> Records:
        """Return the records of a key.

        Args:
            key: What the records belong to.
            process: Number of this process.
            processes: Number of processes. Each reads the files whose number modulo this is its own, so
                that together they read each file once, whatever the number of processes was before.
        """
        paths = matching(self._folder(key), "*.jsonl")
        own = [path for path in paths if int(path.stem) % processes == process]
        return Records([decode_record(line) for path in own for line in read_lines(path)])

    def writer(self, key: Key, *, process: int) -> LineWriter:
        """Return what appends the records that a process makes for a key."""
        return self.line_writer(self._folder(key) / f"{process:05d}.jsonl")

    def _folder(self, key: Key) -> AnyPath:
        return self.work.joinpath(*map(_folder_name, key))


def _folder_name(part: str) -> str:
    """Return a name that a folder can have, whatever a model or a data set is called (``..`` for example)."""
    name = re.sub(r"^\.+$|^$", lambda dots: "%2E" * len(dots[0]) or "%", quote(part, safe=" "))
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 17]}-{hashlib.sha256(part.encode()).hexdigest()[:16]}"
