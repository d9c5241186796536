"""``transcribe``: files of any length to transcripts of any format, those that cannot be read among them."""

import json
import signal
import subprocess
import sys
import time

import pytest
import soundfile

from flax_distil.audio import SAMPLING_RATE
from flax_distil.cli.main import main
from flax_distil.core import InputError
from flax_distil.workflows.transcribe import TranscribeConfig
from tests.long_recording import long_recording

FORMATS = ("json", "txt", "srt", "vtt", "tsv")


def test_good_files_are_written_in_every_format_and_bad_ones_named(
    tiny_en_dir, prompts_dir, tmp_path, capsys, caplog
):
    (tmp_path / "broken.wav").write_bytes(b"this is no audio")
    files = [str(prompts_dir / "validation" / "conf-full.ogg"), str(tmp_path / "broken.wav"), "gone.ogg"]
    out = tmp_path / "out"
    arguments = ["transcribe", *files, f"--model={tiny_en_dir}", f"--output_dir={out}", "--output_format=all",
                 "--generation_max_length=40"]  # fmt: skip
    assert main(arguments) == 1
    assert sorted(path.name for path in out.iterdir()) == sorted(f"conf-full.{name}" for name in FORMATS)
    document = json.loads((out / "conf-full.json").read_text())
    [segment] = document["segments"]
    said, end = "That conference is full.", segment["end"]
    assert (segment["text"], segment["start"]) == (f" {said}", 0.0)
    assert 0.5 < end <= document["duration"] + 1.0
    assert (out / "conf-full.txt").read_text() == f"{said}\n"
    seconds = f"{int(end):02d},{round(end * 1000) % 1000:03d}"
    assert (out / "conf-full.srt").read_text() == f"1\n00:00:00,000 --> 00:00:{seconds}\n{said}\n\n"
    assert f"<|0.00|> {said}" in capsys.readouterr().out
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all(file in message for file, message in zip(files[1:], messages, strict=True))
    assert main(arguments) == 2
    assert "already holds conf-full.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"output_format": "doc"}, "'doc' is unknown: expected one of txt, srt"),
        ({"highlight_words": True}, "highlight_words lays out words"),
        ({"mode": "fast"}, "'fast' is unknown"),
        ({"mode": "sequential", "chunk_length_s": 15.0}, "chunk_length_s is given, but mode sequential"),
        ({"stride_length_s": 2.0}, "stride_length_s is given without"),
        ({"vad": "ears"}, "'ears' is unknown"),
        ({"max_line_width": 0, "word_timestamps": True}, "max_line_width 0 is below 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, named):
    with pytest.raises(InputError, match=named):
        TranscribeConfig(files=["a.wav"], model_name_or_path="m", **flags)


def test_formats_with_times_switch_timestamps_on_and_addresses_name_their_files():
    config = TranscribeConfig(
        files=["https://a.org/x/talk%201.mp3?v=2"], model_name_or_path="m", output_format="vtt"
    )
    assert config.options.return_timestamps
    assert config.output_names(config.files[0]) == ["talk 1.vtt"]
    assert not TranscribeConfig(files=["a.wav"], model_name_or_path="m").options.return_timestamps


@pytest.mark.slow
def test_a_killed_run_keeps_what_it_finished_and_words_are_laid_out(tiny_en_dir, tmp_path):
    files = []
    for number in range(4):
        files.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(files[-1], long_recording(40.0)[0], SAMPLING_RATE)
    out = tmp_path / "out"
    flags = [f"--model={tiny_en_dir}", f"--output_dir={out}", "--output_format=srt", "--word_timestamps",
             "--max_words_per_line=4", "--per_device_eval_batch_size=1", "--chunk_length_s=15"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "flax_distil.cli.main", "transcribe", *files, *flags])
    while not (out / "0.srt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert written == [f"{number}.srt" for number in range(len(written))]
    assert len(written) < len(files)
    texts = [block.split("\n")[2] for block in (out / "0.srt").read_text().strip().split("\n\n")]
    assert max(len(text.split()) for text in texts) == 4
