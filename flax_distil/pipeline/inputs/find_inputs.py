"""Recordings that files, addresses, folders and patterns stand for, and the names of their transcripts."""

import collections
import glob
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.data.sources.file_kinds import AUDIO_SUFFIXES
from flax_distil.storage.remote_files import is_remote


class TranscribeInput(NamedTuple):
    """A recording.

    Attributes:
        given: Path or address.
        stem: Name of its transcripts without their endings; it may begin with subfolders.
    """

    given: str
    stem: str


class _Found(NamedTuple):
    given: str
    below: PurePath  # with the sub-folders to be kept, and the ending


def find_inputs(names: Sequence[str], *, recursive: bool) -> list[TranscribeInput]:
    """Return the recordings that were named, each once.

    A folder stands for the audio files in it, and a pattern (``talks/*.mp3``, ``**`` for any subfolders) for
    the files that match it; subfolders stay in the names of transcripts. Hidden files are left out.
    Recordings of the same name are told apart by their folders, and within a folder by their endings.

    Args:
        names: Paths, addresses, folders and patterns.
        recursive: Search subfolders of folders too.

    Raises:
        InputError: If a folder or a pattern matches nothing, or two addresses end in the same name.
    """
    found: dict[str, _Found] = {}
    for name in names:
        for one in _found(name, recursive=recursive):
            found.setdefault(one.given if is_remote(one.given) else os.path.abspath(one.given), one)
    inputs = list(found.values())
    stems = _stems(inputs)
    taken: dict[str, str] = {}
    for one, stem in zip(inputs, stems, strict=True):
        if stem in taken:
            raise InputError(
                f"the transcripts of {taken[stem]!r} and {one.given!r} would both be called {stem}: write "
                "them into different folders"
            )
        taken[stem] = one.given
    return [TranscribeInput(one.given, stem) for one, stem in zip(inputs, stems, strict=True)]


def _found(name: str, *, recursive: bool) -> Iterator[_Found]:
    if is_remote(name):
        path = urllib.parse.unquote(urllib.parse.urlsplit(name).path)
        yield _Found(name, PurePath(PurePath(path).name or "recording"))
        return
    path = str(user_path(name))
    if name and os.path.isdir(path):
        files = sorted(_audio_below(path) if recursive else _audio_in(path))
        if not files:
            deeper = "" if recursive else "; its sub-folders are searched with recursive"
            raise InputError(f"folder {name!r} holds no audio file{deeper}")
        for file in files:
            yield _Found(file, PurePath(os.path.relpath(file, path)))
    elif glob.has_magic(path) and not os.path.lexists(path):
        files = _matching(path)
        if not files:
            raise InputError(f"no audio file matches {name!r}: check the pattern")
        base = _fixed_part(path)
        for file in files:
            below = PurePath(os.path.relpath(file, base))
            yield _Found(file, PurePath(below.name) if ".." in below.parts else below)
    else:
        yield _Found(name, PurePath(PurePath(path).name or "recording"))


def _audio_in(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.path for entry in entries if _is_audio(entry.name) and entry.is_file())


def _audio_below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if _is_audio(name))


def _is_audio(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES


def _matching(pattern: str) -> list[str]:
    """Return the files that a pattern fits; one that names no ending means those of audio."""
    files = sorted(file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file))
    ending = os.path.splitext(pattern)[1]
    return files if ending and not glob.has_magic(ending) else [file for file in files if _is_audio(file)]


def _fixed_part(pattern: str) -> str:
    parts = PurePath(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return str(PurePath(*parts[:fixed]))


def _stems(inputs: Sequence[_Found]) -> list[str]:
    """Return a name for each recording, as short as tells it from the others."""
    groups: dict[PurePath, list[int]] = collections.defaultdict(list)
    for number, one in enumerate(inputs):
        groups[_without_ending(one.below)].append(number)
    stems = [_without_ending(one.below) for one in inputs]
    for members in groups.values():
        if len(members) > 1 and not any(is_remote(inputs[number].given) for number in members):
            told_apart = _told_apart([inputs[number] for number in members])
            for number, stem in zip(members, told_apart, strict=True):
                stems[number] = stem
    return [stem.as_posix() for stem in stems]


def _told_apart(inputs: Sequence[_Found]) -> list[PurePath]:
    """Return names of recordings that would have one name."""
    paths = [os.path.abspath(one.given) for one in inputs]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    in_one_folder = len({os.path.dirname(path) for path in paths}) == 1
    names = [
        one.below if in_one_folder else PurePath(os.path.relpath(path, common))
        for one, path in zip(inputs, paths, strict=True)
    ]
    bare = collections.Counter(map(_without_ending, names))
    return [name if bare[_without_ending(name)] > 1 else _without_ending(name) for name in names]


def _without_ending(path: PurePath) -> PurePath:
    return path if path.stem == "." else path.with_name(path.stem)
