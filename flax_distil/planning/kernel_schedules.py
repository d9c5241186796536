"""Count the cycles of Pallas kernels in the schedule that the TPU compiler made of them.

The text of a compiled program says nothing of what happens inside a kernel, but the compiler can write the
instruction bundles of each kernel into a folder. A core runs one bundle per cycle unless it waits, so a
kernel takes at least its bundles, times the lengths of the loops that hold them. On chips whose two cores are
one device the compiler divides the grid between them, and the bundles are those of one core.

Not in the count: waits for main memory, and for a unit that is still busy, where the chip itself checks that.
On a v4 the count of a large product agrees with the compiler's own estimate; on a v5e and a tpu7x that of a
product can be up to 10 % below the time at the peak rate. A bundle that a branch may skip counts.
"""

import atexit
import dataclasses
import functools
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = "LIBTPU_INIT_ARGS"
_FILE = re.compile(r"\d+-(?P<name>.+)-\d+-final_bundles\.txt$")
_BUNDLE = re.compile(r"^ *(?P<address>0x[0-9a-f]+|0)\s[ A-Z]*:[ >]*\{")
_REGION = re.compile(r"Start(?:/End empty)? region (\d+)")
_BRANCH = re.compile(r"sbr\.rel \((?P<negated>!?)(?P<predicate>%p\w+)\) target = \$region(?P<region>\d+)")
_COMPARISON = r"{} = scmp\.(?P<kind>ge|gt|eq|lt|le|ne)\.s32\.totalorder (?P<counter>%s\w+), (?P<bound>\d+)"


@functools.cache
def schedule_folder() -> Path:
    """Return the folder of the schedules, and ask the TPU compiler of this process to write them there.

    The compiler reads this request once, when it is loaded. The folder is removed when the process ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="flax_distil-schedules-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    wanted = (
        f"--xla_jf_dump_to={folder}",
        "--xla_jf_dump_llo_pass_label_regex=^(final_bundles|deduplication-map)",
        "--xla_jf_dump_hlo_text=false",
    )
    os.environ[_VARIABLE] = " ".join([os.environ.get(_VARIABLE, ""), *wanted]).strip()
    return folder


def forget_schedules() -> None:
    """Remove the schedules of earlier compilations."""
    for file in schedule_folder().iterdir():
        file.unlink(missing_ok=True)


def read_schedules(folder: Path, names: set[str]) -> dict[str, float]:
    """Return the cycles of kernels, by the name of their instruction in the compiled program.

    Args:
        folder: Folder into which the compiler wrote the schedules of one compilation.
        names: Names of the instructions; those without a schedule, or with loops that could not be counted,
            are left out.
    """
    files = {found["name"]: file for file in folder.iterdir() if (found := _FILE.search(file.name))}
    same = {other: key for key, others in _same_programs(folder).items() for other in others}
    cycles = {}
    for name in names:
        file = files.get(name) or files.get(same.get(name, ""))
        counted = (
            None if file is None else scheduled_cycles(file.read_text(encoding="utf-8", errors="replace"))
        )
        if counted is not None:
            cycles[name] = counted
    return cycles


def _same_programs(folder: Path) -> Mapping[str, list[str]]:
    """Return the instructions that share one schedule, by the one that is named after it."""
    same: dict[str, list[str]] = {}
    for file in folder.glob("*-deduplication-map.txt"):
        key = ""
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("key:"):
                key = line.removeprefix("key:")
            elif line.startswith("  "):
                same.setdefault(key, []).append(line.strip())
    return same


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Loop:
    """A loop of a schedule: the addresses of its first and last bundle, and how often it runs."""

    first: int
    last: int
    trips: int


def scheduled_cycles(text: str) -> float | None:
    """Return the cycles of one execution of a schedule.

    Args:
        text: Bundles with their addresses, in the form in which the compiler writes ``final_bundles``.

    Returns:
        The number of bundles, those in loops as often as these run; None if the length of a loop could not be
        read or there are no bundles.
    """
    bundles = _bundles(text)
    regions = {int(region): at for at, bundle in bundles.items() for region in _REGION.findall(bundle)}
    loops = []
    for at, bundle in bundles.items():
        for branch in _BRANCH.finditer(bundle):
            start = regions.get(int(branch["region"]))
            if start is None or start > at:  # not a loop: it skips what follows
                continue
            trips = _trips(text, branch)
            if trips is None:
                return None
            loops.append(_Loop(first=start, last=at, trips=trips))
    if not bundles:
        return None
    return float(
        sum(math.prod(loop.trips for loop in loops if loop.first <= at <= loop.last) for at in bundles)
    )


def _bundles(text: str) -> dict[int, str]:
    """Return the bundles by address; the comments of a bundle may take several lines."""
    bundles: dict[int, str] = {}
    address = None
    for line in text.splitlines():
        if found := _BUNDLE.match(line):
            address = int(found["address"], 16)
            bundles[address] = line
        elif address is not None:
            bundles[address] += line
    return bundles


def _trips(text: str, branch: re.Match[str]) -> int | None:
    """Return how often a loop runs that a branch at its end repeats; None if this is not constant.

    The counter is compared after it was increased: it is ``initial + step`` at the end of the first run.
    """
    comparison = re.search(_COMPARISON.format(re.escape(branch["predicate"])), text)
    if comparison is None:
        return None
    ends = branch["negated"] == "!"
    if (comparison["kind"], ends) not in (("ge", True), ("eq", True), ("lt", False), ("ne", False)):
        return None
    counter = re.escape(comparison["counter"])
    increased = re.search(rf"{counter} = sadd\.s32 (\d+), (%s\w+)", text)
    if increased is None:
        return None
    counted = re.escape(_before_spill(text, increased[2]))
    entered = re.search(rf"{counted} = sphi (%s\w+|\d+)[, ]", text)
    if entered is None:
        return None
    initial = entered[1]
    if initial.startswith("%"):
        constant = re.search(rf"{re.escape(initial)} = smov\.u32 (\d+)", text)
        if constant is None:
            return None
        initial = constant[1]
    return max(1, -(-(int(comparison["bound"]) - int(initial)) // int(increased[1])))


def _before_spill(text: str, register: str) -> str:
    """Return the register whose value another one was loaded from memory with; itself if it was not."""
    loaded = re.search(rf"{re.escape(register)} = sld \[smem:\[(#\w+)\]\]", text)
    stored = loaded and re.search(rf"sst \[smem:\[{re.escape(loaded[1])}\]\] (%s\w+)", text)
    return stored[1] if stored else register
