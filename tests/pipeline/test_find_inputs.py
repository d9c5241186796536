"""What files, folders and patterns stand for, and what transcripts are called."""

import os

import pytest

from flax_distil.core.errors import InputError
from flax_distil.pipeline.inputs.find_inputs import find_inputs


@pytest.fixture
def talks(tmp_path, monkeypatch):
    """A folder of talks with two of one name, and files that are none."""
    for name in ("a.mp3", "b.wav", "notes.txt", ".hidden.wav", "monday/a.mp3", "monday/deep/c.flac"):
        path = tmp_path / "talks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "talks"


def stems(*names, recursive=False):
    return {one.given: one.stem for one in find_inputs(names, recursive=recursive)}


def test_a_folder_stands_for_its_audio_files_and_keeps_its_sub_folders(talks):
    assert stems("talks") == {"talks/a.mp3": "a", "talks/b.wav": "b"}
    assert stems("talks/", recursive=True) == {
        "talks/a.mp3": "a", "talks/b.wav": "b", "talks/monday/a.mp3": "monday/a",
        "talks/monday/deep/c.flac": "monday/deep/c",
    }  # fmt: skip


def test_a_pattern_stands_for_the_files_that_it_fits(talks):
    assert stems("talks/*.mp3") == {"talks/a.mp3": "a"}
    assert stems("talks/*") == {"talks/a.mp3": "a", "talks/b.wav": "b"}
    assert stems("talks/*/*.mp3") == {"talks/monday/a.mp3": "monday/a"}
    assert stems("talks/**/c.*") == {"talks/monday/deep/c.flac": "monday/deep/c"}
    assert stems("talks/*.txt") == {"talks/notes.txt": "notes"}


def test_recordings_of_one_name_are_told_apart_by_folder_or_else_by_ending(talks):
    assert stems("talks/a.mp3", "talks/monday/a.mp3") == {
        "talks/a.mp3": "a", "talks/monday/a.mp3": "monday/a"
    }  # fmt: skip
    (talks / "a.wav").touch()
    assert stems("talks") == {"talks/a.mp3": "a.mp3", "talks/a.wav": "a.wav", "talks/b.wav": "b"}


def test_a_recording_that_is_named_twice_is_transcribed_once(talks):
    assert stems("talks/a.mp3", "talks", os.path.abspath("talks/b.wav")) == {
        "talks/a.mp3": "a", "talks/b.wav": "b"
    }  # fmt: skip


def test_addresses_are_called_as_their_files_and_collide_where_those_do(talks):
    assert stems("https://a.org/x/talk%201.mp3?v=2") == {"https://a.org/x/talk%201.mp3?v=2": "talk 1"}
    with pytest.raises(InputError, match="would both be called talk: write them into different folders"):
        stems("https://a.org/talk.mp3", "https://b.org/talk.mp3")


def test_a_name_with_special_letters_is_a_file_if_there_is_one(talks):
    (talks / "what[1].wav").touch()
    assert stems("talks/what[1].wav") == {"talks/what[1].wav": "what[1]"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "talks/empty",
            "folder 'talks/empty' holds no audio file; its sub-folders are searched",
        ),
        ("talks/*.flac", r"no audio file matches 'talks/\*.flac'"),
    ],
)
def test_what_gives_nothing_is_refused(talks, name, sentence):
    (talks / "empty").mkdir()
    with pytest.raises(InputError, match=sentence):
        stems(name)


@pytest.mark.parametrize("name", ["~temp.wav", os.fsdecode(b"caf\xe9.wav"), "a\0b.wav", "", "~nobody/x.wav"])
def test_names_that_may_be_impossible_to_open_are_left_to_who_reads_them(talks, name):
    assert [one.given for one in find_inputs([name], recursive=True)] == [name]


def test_transcripts_stay_in_their_folder_whatever_recordings_are_called(talks, tmp_path):
    (tmp_path / "..wav").touch()
    (tmp_path / "...wav").touch()
    given = ("talks/*/../b.wav", "..wav", "...wav", "https://host/a/..", "https://host/%2e%2e%2fc.wav")
    for name in (*given, "talks/mon*/../../talks/a.mp3", "talks/mon*/../../../*/talks/b.wav"):
        for stem in stems(name).values():
            assert os.path.normpath(f"out/{stem}.json").startswith("out/"), name
