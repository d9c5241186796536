"""The folder that pseudo-labeling writes.

A shard is finished once its line is in ``.labelling/progress-….jsonl``. The line is written after the Parquet
file has its name, so a file without a line is written again.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.data.shards.shard_writer import write_shard
from flax_distil.pseudo_labeling.shard_manifest import ShardManifest
from flax_distil.pseudo_labeling.shard_plan import ShardKey
from flax_distil.storage.line_files import LineWriter, read_lines
from flax_distil.storage.output_dir import make_folder
from flax_distil.storage.paths import file_sizes, matching, remove_tree, scratch_folder
from flax_distil.storage.resumable_output import ResumableOutput, read_object

if TYPE_CHECKING:
    import pyarrow

INDEX_NAME = "index.json"
"""File with the settings and the list of files. It is written last: with it the data set is complete."""

DATA_NAME = "data"

SUMMARY_NAME = "summary.json"
THROUGHPUT_NAME = "throughput.json"
CARD_NAME = "README.md"

RESULTS = (
    INDEX_NAME, SUMMARY_NAME, THROUGHPUT_NAME, CARD_NAME, f"{DATA_NAME}/*.parquet", f"{DATA_NAME}/*/*.parquet"
)  # fmt: skip
"""Patterns of all files of a finished data set."""

_FORMER_RESULTS = ("dataset_info.json", "state.json", "data-*.arrow")
"""Patterns of the files of versions that wrote no shards."""


class LabelOutput(ResumableOutput):
    """Output folder of a pseudo-labeled data set."""

    contents = "labels made"
    work_name = ".labelling"
    state_name = "run.json"
    results = (*RESULTS, *_FORMER_RESULTS)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder ready, as :meth:`ResumableOutput.begin` does."""
        super().begin(settings)
        if self.is_complete:
            remove_tree(self.work)
            return
        for scratch in self.work.glob("writing-*"):
            scratch.unlink()
        make_folder(self.folder / DATA_NAME)

    @property
    def is_complete(self) -> bool:
        """Whether every shard is labeled and described."""
        return (self.folder / INDEX_NAME).is_file()

    def is_started(self) -> bool:
        """Whether an earlier run has begun in this folder."""
        return self.work.is_dir() or super().is_started()

    def earlier_settings(self) -> dict[str, Any] | None:
        """Return the settings of the labels that are there, finished or not."""
        known = read_object(self.folder / INDEX_NAME) if self.is_complete else self.read_state()
        return (known or {}).get("settings")

    def make_state(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings as the index holds them too."""
        return {"settings": settings}

    def check_teacher(self, teacher: str) -> None:
        """Check that all labels that are there were made with these weights, and remember the weights.

        Args:
            teacher: Digest of the teacher's weights.

        Raises:
            InputError: If they were made with other weights.
        """
        state = self.read_state() or {}
        if state.setdefault("teacher", teacher) != teacher:
            raise InputError(
                f"output_dir {self._output_dir!r} holds labels of a teacher with other weights: choose "
                "another, or set overwrite_output_dir"
            )
        self.write_state(state)

    def manifests(self) -> dict[ShardKey, ShardManifest]:
        """Return the finished shards of all processes, in the order of the corpus."""
        paths = matching(self.work, "progress-*.jsonl")
        lines = [line for path in paths for line in read_lines(path)]
        found = {manifest.key: manifest for manifest in map(ShardManifest.from_json, lines)}
        sizes = file_sizes(self.folder / DATA_NAME)

        def is_there(manifest: ShardManifest) -> bool:
            file = manifest.file
            return file is None or sizes.get(file.removeprefix(f"{DATA_NAME}/")) == manifest.bytes

        return {key: found[key] for key in sorted(found) if is_there(found[key])}

    def writer(self, process: int) -> LineWriter:
        """Return what appends the manifests of the shards that a process finishes."""
        return self.line_writer(self.work / f"progress-{process:05d}.jsonl", is_synced=True)

    def write_shard(
        self, key: ShardKey, split: str, table: "pyarrow.Table", *, process: int
    ) -> dict[str, Any]:
        """Write the Parquet file of a shard.

        Args:
            key: Numbers in the name of the file.
            split: Beginning of the name: a split, or configuration/split.
            table: Rows of the file.
            process: Number of this process.

        Returns:
            The fields of the shard's manifest that describe the file.

        Raises:
            InputError: If it cannot be written.
        """
        name = f"{DATA_NAME}/{'-'.join([split, *(f'{number:05d}' for number in key)])}.parquet"
        path = self.folder / name
        make_folder(path.parent)
        with self.writing(path), scratch_folder(self.work) as scratch:
            written = write_shard(table, path, scratch=scratch / f"writing-{process:05d}.parquet")
        return {"file": name, "rows": len(table), **dataclasses.asdict(written)}

    def finish(self, documents: Mapping[str, str], index: Mapping[str, Any]) -> None:
        """Write the files that describe the whole data set, the index last.

        Args:
            documents: Texts by the names of their files.
            index: Fields of the index that stand beside the settings.
        """
        state = self.read_state() or {}
        for name, text in documents.items():
            self.write_file(self.folder / name, text)
        self.write_file(self.folder / INDEX_NAME, {**state, **index})
        remove_tree(self.work)

    def discard(self) -> None:
        """Remove the folder after a run that could label nothing."""
        remove_tree(self.work)
        if isinstance(self.folder, Path):
            with contextlib.suppress(OSError):  # the folder holds other files
                (self.folder / DATA_NAME).rmdir()
                self.folder.rmdir()
