"""``transcribe``: files of any length to transcripts of any format, those that cannot be read among them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.pipeline.config import TranscribeConfig
from tests.long_recording import long_recording

pytestmark = pytest.mark.integration

FORMATS = ("json", "txt", "srt", "vtt", "tsv")


def test_good_files_are_written_in_every_format_and_bad_ones_named(
    tiny_en_dir, prompts_dir, tmp_path, capsys, caplog
):
    (tmp_path / "broken.wav").write_bytes(b"this is no audio")
    latin = tmp_path / os.fsdecode(b"caf\xe9.ogg")
    shutil.copy(prompts_dir / "validation" / "conf-full.ogg", latin)
    files = [str(prompts_dir / "validation" / "conf-full.ogg"), str(tmp_path / "broken.wav"), "gone.ogg"]
    out = tmp_path / "out"
    flags = [f"--model={tiny_en_dir}", "--generation_max_length=40"]
    arguments = ["transcribe", *files, str(latin), *flags, f"--output_dir={out}", "--output_format=all"]
    assert main(arguments) == 1
    written = {path.name for path in out.iterdir()}
    assert written == {
        ".transcripts.jsonl",
        *(f"{stem}.{name}" for stem in ("conf-full", latin.stem) for name in FORMATS),
    }
    document = json.loads((out / "conf-full.json").read_text())
    [segment] = document["segments"]
    said, end = "That conference is full.", segment["end"]
    assert (segment["text"], segment["start"], segment["seek"]) == (f" {said}", 0.0, 0)
    assert 0.5 < end <= document["duration"]
    assert (out / "conf-full.txt").read_text() == f"{said}\n"
    seconds = f"{int(end):02d},{round(end * 1000) % 1000:03d}"
    assert (out / "conf-full.srt").read_text() == f"1\n00:00:00,000 --> 00:00:{seconds}\n{said}\n\n"
    assert f"{files[0]}: [00:00.000 --> 00:{end:06.3f}]  {said}\n" in capsys.readouterr().out
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(messages) == 2
    assert all(file in message for file, message in zip(files[1:], messages, strict=True))
    assert main(arguments) == 2
    assert "already holds conf-full.txt" in capsys.readouterr().err
    again = (out / "conf-full.txt").stat().st_mtime_ns
    assert main(["transcribe", files[0], str(latin), *flags, "--skip_existing", f"-o={out}"]) == 0
    assert (out / "conf-full.txt").stat().st_mtime_ns == again
    assert main(["transcribe", files[0], *flags, "-o", "-"]) == 0
    assert capsys.readouterr().out == f"{said}\n"


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
        ({"output_dir": "-", "output_format": "all"}, "output_format 'all' is for files, and output_dir '-'"),
        ({"skip_existing": True, "overwrite_output_dir": True}, "contradict each other: choose one"),
        ({"vad_threshold": 0.6}, "vad_parameters say what speech is, and nothing looks for it: give vad"),
        ({"vad": "auto", "vad_threshold": 2.0}, "threshold 2 of voice activity is not between 0 and 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, named):
    with pytest.raises(InputError, match=named):
        build(TranscribeConfig, files=["a.wav"], model_name_or_path="m", **flags)


def test_formats_with_times_switch_timestamps_on():
    config = build(TranscribeConfig, files=["talk.mp3"], model_name_or_path="m", output_format="vtt")
    assert config.options.return_timestamps
    assert not build(TranscribeConfig, files=["a.wav"], model_name_or_path="m").options.return_timestamps


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
