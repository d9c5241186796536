"""Transcripts are there whole or not at all, and only those that were written here are ever replaced."""

import errno
import os

import pytest

from flax_distil.core.errors import InputError
from flax_distil.pipeline.inputs.find_inputs import TranscribeInput
from flax_distil.pipeline.writers.formats import SubtitleOptions
from flax_distil.pipeline.writers.transcript_output import StandardOutput, TranscriptFolder
from flax_distil.transcription.results import TranscribedSegment, Transcript

TALK, SPEECH = TranscribeInput("talks/talk.mp3", "talk"), TranscribeInput("x/speech.wav", "x/speech")


def transcript(text):
    segment = TranscribedSegment(
        start=0.0, end=1.0, text=text, tokens=(1,), avg_logprob=-0.5, no_speech_prob=0.1, temperature=0.0
    )
    return Transcript(
        text=text, text_with_timestamps=None, tokens=[], token_logprobs=[], avg_logprob=-0.5,
        no_speech_prob=0.1, language="en", segments=(segment,),
    )  # fmt: skip


def output(folder, *formats):
    return TranscriptFolder(str(folder), formats or ("txt",), SubtitleOptions())


def choose(folder, *formats, overwrite=False, skip_existing=False):
    return output(folder, *formats).choose([TALK, SPEECH], overwrite=overwrite, skip_existing=skip_existing)


def test_what_exists_is_refused_or_left_out_or_replaced_as_asked(tmp_path):
    assert output(tmp_path).write(TALK, transcript("Hello."), 1.0) == [tmp_path / "talk.txt"]
    assert output(tmp_path).write(SPEECH, None, 1.0) == []
    with pytest.raises(InputError, match=r"already holds talk.txt: choose another, or set skip_existing"):
        choose(tmp_path)
    assert choose(tmp_path, skip_existing=True) == [SPEECH]
    assert choose(tmp_path, overwrite=True) == [TALK, SPEECH]
    output(tmp_path).write(SPEECH, transcript("Friends."), 1.0)
    assert choose(tmp_path, skip_existing=True) == []
    assert (tmp_path / "x" / "speech.txt").read_text() == "Friends.\n"


def test_the_same_command_goes_on_where_it_was_stopped_and_no_other_does(tmp_path):
    def of_command(command):
        return TranscriptFolder(str(tmp_path), ("txt",), SubtitleOptions(), command=command)

    of_command("a").write(TALK, transcript("Hello."), 1.0)
    again = of_command("a")
    assert again.choose([TALK, SPEECH], overwrite=False, skip_existing=False) == [SPEECH]
    with pytest.raises(InputError, match=r"already holds talk.txt"):
        of_command("b").choose([TALK, SPEECH], overwrite=False, skip_existing=False)
    again.write(SPEECH, transcript("Friends."), 1.0)
    again.finish()
    with pytest.raises(InputError, match=r"already holds talk.txt"):
        of_command("a").choose([TALK, SPEECH], overwrite=False, skip_existing=False)


def test_a_format_that_is_missing_is_written_beside_the_others(tmp_path):
    output(tmp_path, "txt").write(TALK, transcript("Hello."), 1.0)
    assert choose(tmp_path, "txt", "srt", skip_existing=True) == [TALK, SPEECH]


@pytest.mark.parametrize("flag", ["overwrite", "skip_existing"])
def test_a_file_that_was_not_written_here_or_was_changed_is_never_replaced(flag, tmp_path):
    (tmp_path / "talk.txt").write_text("years of work")
    formats = ("txt", "srt")
    with pytest.raises(InputError, match=r"holds talk.txt, which was not written here or was changed since"):
        choose(tmp_path, *formats, **{flag: True})
    (tmp_path / "talk.txt").unlink()
    output(tmp_path).write(TALK, transcript("Hello."), 1.0)
    assert TALK in choose(tmp_path, *formats, **{flag: True})
    (tmp_path / "talk.txt").write_text("Hello, and corrected.")
    with pytest.raises(InputError, match="was changed since, and is not replaced"):
        choose(tmp_path, *formats, **{flag: True})


def test_a_record_that_a_kill_cut_off_is_read_up_to_there(tmp_path):
    output(tmp_path).write(TALK, transcript("Hello."), 1.0)
    with (tmp_path / ".transcripts.jsonl").open("a") as file:
        file.write('{"file": "speech')
    assert choose(tmp_path, overwrite=True) == [TALK, SPEECH]


@pytest.mark.parametrize("length", [244, 250])
def test_long_names_are_written_through_short_scratch_names(length, tmp_path):
    recording = TranscribeInput("long.wav", "n" * length)
    written = output(tmp_path, "txt", "json").write(recording, transcript("Hello."), 1.0)
    assert [path.name for path in written] == [f"{'n' * length}.txt", f"{'n' * length}.json"]
    assert output(tmp_path).refusal(recording) is None


def test_a_name_that_no_file_can_have_is_told_before_the_work(tmp_path):
    refusal = output(tmp_path).refusal(TranscribeInput("é.wav", "é" * 126))
    assert "the transcript of 'é.wav' would have a name of 256 bytes" in refusal


def test_a_full_disk_leaves_nothing_half_written(tmp_path, limited_files):
    folder = output(tmp_path)
    folder.write(SPEECH, transcript("Short."), 1.0)
    with limited_files(4000), pytest.raises(OSError, match="File too large") as raised:
        folder.write(TALK, transcript("long " * 2000), 1.0)
    assert raised.value.errno == errno.EFBIG
    assert sorted(os.listdir(tmp_path)) == [".transcripts.jsonl", "x"]
    folder.write(TALK, transcript("long " * 2000), 1.0)
    assert (tmp_path / "talk.txt").stat().st_size == 10_000


def test_standard_output_has_the_transcripts_in_order(capsys):
    shown = StandardOutput("txt", SubtitleOptions())
    third = TranscribeInput("c.wav", "c")
    assert shown.choose([TALK, SPEECH, third], overwrite=False, skip_existing=False) == [TALK, SPEECH, third]
    shown.write(third, transcript("Three."), 1.0)
    assert capsys.readouterr().out == ""
    shown.write(TALK, transcript("One."), 1.0)
    shown.write(SPEECH, None, 0.0)
    assert capsys.readouterr().out == "One.\nThree.\n"
