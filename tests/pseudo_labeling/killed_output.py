"""A program that labels three made-up units, killed at every so-many-th line that it runs, and run again.

Prints how many lines it ran. In a process of its own: it forks, which a process with devices must not.
"""

import os
import shutil
import sys
from pathlib import Path

import pyarrow

from flax_distil.data.shards import shard_writer
from flax_distil.metrics.word_errors import ErrorCounts
from flax_distil.pseudo_labeling import output as label_output
from flax_distil.pseudo_labeling.output import LabelOutput
from flax_distil.pseudo_labeling.shard_manifest import ShardManifest
from flax_distil.storage import line_files, local_files, resumable_output

FILES = {
    module.__file__ for module in (label_output, resumable_output, line_files, local_files, shard_writer)
}
UNITS = 3


def label(folder: Path, *, overwrite: bool, units: int = UNITS) -> int:
    """Do what is not done yet and return the number of files written."""
    output = LabelOutput(str(folder), overwrite=overwrite)
    output.check()
    output.begin({"units": units})
    if output.is_complete:
        return 0
    output.check_teacher("teacher")
    done = output.manifests()
    with output.writer(0) as writer:
        for number in range(units):
            if (number,) not in done:
                table = pyarrow.table({"number": [number] * 10})
                written = output.write_shard((number,), "train", table, process=0)
                manifest = ShardManifest(
                    key=(number,), after=None, samples=10, **written, process_seconds=1.0, processes=1,
                    errors=vars(ErrorCounts()), skipped={"samples": [], "forgotten": {}},
                )  # fmt: skip
                writer.write(manifest.to_json())
    manifests = output.manifests()
    documents = {"summary.json": "{}\n", "throughput.json": "{}\n"}
    output.finish(documents, {"files": [manifest.sha256 for manifest in manifests.values()]})
    return units - len(done)


def in_child(folder: Path, *, overwrite: bool, kill_at: int | None = None) -> int:
    """Run it in a process that is killed at a line; return how many files it wrote, or -1 if it was."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (-9, *range(UNITS + 1)):
            raise SystemExit(f"killed at line {kill_at}, the next run failed with {status}")
        return max(status, -1)
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), 9)
        return trace

    if kill_at is not None:
        sys.settrace(trace)
    try:
        written = label(folder, overwrite=overwrite)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(99)
    os._exit(written)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main(place: Path, *, overwrite: bool, step: int) -> None:
    label(place / "whole", overwrite=False)
    wanted, folder, line = contents(place / "whole"), place / "killed", 1
    label(place / "other", overwrite=False, units=UNITS + 1)
    killed = True
    while killed:
        if overwrite:
            shutil.copytree(place / "other", folder)
        killed = in_child(folder, overwrite=overwrite, kill_at=line) == -1
        finished = len(list(folder.glob("data/*.parquet")))
        again = in_child(folder, overwrite=overwrite)
        found = contents(folder)
        assert found == wanted, (line, sorted(found))
        if not overwrite:
            assert finished + again <= UNITS + 1, (line, finished, again)
        line += step
        shutil.rmtree(folder)
    print(line - step)


if __name__ == "__main__":
    main(Path(sys.argv[1]), overwrite=sys.argv[2] == "overwrite", step=int(sys.argv[3]))
