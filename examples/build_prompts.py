"""Build the demo corpus `examples/asterisk_prompts` from Debian's telephone prompts.

The recordings and their transcripts come from two Debian packages (any Debian or Ubuntu
machine, no root needed):

    apt-get download asterisk-core-sounds-en asterisk-core-sounds-en-g722
    for package in asterisk-core-sounds-en*.deb; do dpkg -x "$package" debs; done
    python examples/build_prompts.py \
        debs/usr/share/asterisk/sounds/en_US_f_Allison \
        debs/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz \
        debs/usr/share/doc/asterisk-core-sounds-en/copyright

It writes, in the layout that `datasets` calls AudioFolder, `train/` and `validation/` with
Ogg/Opus files and a `metadata.jsonl` each (`file_name`, `text`, `duration` in seconds), and
the licence and the attribution beside them. The same input gives the same files, byte by byte.

What is left out: tones, silence, single letters, initialisms, the phonetic alphabet, prompts
over 30 s (Whisper's window), and the prompts in EXCLUDED, whose transcript is not what is
spoken. Prompts that are merely hard to recognise stay.
"""

import argparse
import collections
import dataclasses
import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from whisper_normalizer.english import EnglishTextNormalizer

from flax_distil.audio.constants import CHUNK_SECONDS, SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio

EXCLUDED_FOLDERS = {
    "letters": "single letters and names of punctuation marks",
    "phonetic": "the phonetic alphabet",
    "silence": "no speech",
}

INITIALISMS = "spelled letters, not words"
EXCLUDED = {
    "digits/a-m": INITIALISMS,
    "digits/p-m": INITIALISMS,
    "spy-h323": INITIALISMS,
    "spy-iax": INITIALISMS,
    "spy-iax2": INITIALISMS,
    "spy-mgcp": INITIALISMS,
    "spy-misdn": INITIALISMS,
    "spy-nbs": INITIALISMS,
    "pbx-invalid": "spoken: I'm sorry, but that's not a valid extension",
    "pbx-invalidpark": "spoken: I'm sorry, but there is no call parked",
    "vm-savefolder": "spoken: should I save this message to",
}
"""Prompts left out by name, each with the reason.

The rule for "not what is spoken": Whisper tiny.en disagreed with the list, Whisper base heard
the same other words as tiny.en, and these cannot be taken for the
listed ones by ear ("but" where nothing stands; not "caller" and "color").
"""

SPELLING = {
    "#": "pound",
    "*": "star",
    "fourtieth": "fortieth",
    "represenatives": "representatives",
    "thru": "through",
    "umute": "unmute",
    "Un-indentified": "Unidentified",
    "witheld": "withheld",
}
"""Slips of the list, and symbols where the speaker says a word."""

VALIDATION_PROMPTS = 80
VALIDATION_MIN_WORDS = 4
VALIDATION_MAX_SECONDS = 12.0
"""Held-out prompts are sentences (a lone word leaves everyone guessing) of everyday length."""

BIT_RATE = 24_000

NORMALIZE = EnglishTextNormalizer()

ATTRIBUTION = """\
Recorded by Allison Smith (http://www.theivrvoice.com), copyright 2003-2010 Allison Smith.
Financial contributions by Digium, Inc. (http://www.digium.com).
Source: asterisk-core-sounds 1.6.1, http://downloads.asterisk.org/pub/telephony/asterisk/,
as packaged by Debian (asterisk-core-sounds-en-g722 and asterisk-core-sounds-en, 1.6.1-1).

Licence: Creative Commons Attribution-ShareAlike 3.0 (CC BY-SA 3.0), full text in LICENSE;
https://creativecommons.org/licenses/by-sa/3.0/. This folder, being an adaptation, is under
the same licence; the rest of the repository is not.

Changes made (by examples/build_prompts.py, which lists them one by one):
- the recordings were decoded from G.722 and encoded as Ogg/Opus at about 24 kbit/s;
- tones, silence, letters, the phonetic alphabet, initialisms, prompts over 30 s and prompts
  whose transcript differs from the recording were left out;
- the files were renamed (folder and name joined by a hyphen) and split into train and validation;
- in the transcripts, stage directions in brackets and ellipses were removed, slips of
  spelling mended, and symbols written as the words spoken.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """One recording: its name in the list (``digits/10``), what is said, the samples at 16 kHz."""

    name: str
    text: str
    samples: np.ndarray

    @property
    def file_name(self) -> str:
        """Flat name, unique because no prompt's own name holds another's folder."""
        return self.name.replace("/", "-") + ".ogg"

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / SAMPLING_RATE

    @property
    def key(self) -> str:
        """The text as scored, so that two renderings of one sentence are known as one."""
        return NORMALIZE(self.text)


def main() -> None:
    """Read the packages' files, write the corpus, print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sounds", type=Path, help="folder of .g722 files")
    parser.add_argument("transcripts", type=Path, help="core-sounds-en.txt.gz: lines 'name: text'")
    parser.add_argument("copyright", type=Path, help="the package's copyright file, for the licence's text")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "asterisk_prompts")
    arguments = parser.parse_args()

    prompts = read_prompts(arguments.sounds, read_transcripts(arguments.transcripts))
    held_out = validation_keys(prompts)
    for split in ("train", "validation"):
        chosen = [prompt for prompt in prompts if (prompt.key in held_out) == (split == "validation")]
        write_split(arguments.output_dir / split, chosen)
        print(f"{split}: {len(chosen)} prompts, {sum(prompt.seconds for prompt in chosen) / 60:.1f} minutes")
    (arguments.output_dir / "LICENSE").write_text(license_text(arguments.copyright))
    (arguments.output_dir / "ATTRIBUTION").write_text(ATTRIBUTION)


def read_transcripts(path: Path) -> dict[str, str]:
    """Read the list ``name: text``, cleaned; prompts without a spoken word have an empty text."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    entries = (line.split(":", 1) for line in lines if ":" in line and not line.startswith(";"))
    return {name.strip(): clean(text) for name, text in entries}


def clean(text: str) -> str:
    """Keep what is spoken: no stage directions ([beep], <beep>, (note)), no ellipses, no symbols."""
    text = re.sub(r"\[.*?\]|<.*?>|\(.*?\)|\.\.\.", " ", text)
    for slip, word in SPELLING.items():
        text = re.sub(rf"(?<!\w){re.escape(slip)}(?!\w)", word, text)
    return " ".join(text.split())


def read_prompts(sounds: Path, transcripts: dict[str, str]) -> list[Prompt]:
    """Decode every recording that has a transcript and is not left out, in order of name."""
    prompts = []
    for path in sorted(sounds.rglob("*.g722")):
        name = path.relative_to(sounds).with_suffix("").as_posix()
        text = transcripts.get(name, "")
        if not text or name in EXCLUDED or name.split("/")[0] in EXCLUDED_FOLDERS:
            continue
        prompt = Prompt(name=name, text=text, samples=decode_audio(path))
        if prompt.seconds <= CHUNK_SECONDS:
            prompts.append(prompt)
    return prompts


def validation_keys(prompts: Iterable[Prompt]) -> set[str]:
    """Draw held-out sentences by the hash of their words; all prompts of one sentence go together."""
    groups: dict[str, list[Prompt]] = collections.defaultdict(list)
    for prompt in prompts:
        groups[prompt.key].append(prompt)
    sentences = [
        key
        for key, group in groups.items()
        if len(key.split()) >= VALIDATION_MIN_WORDS
        and max(prompt.seconds for prompt in group) <= VALIDATION_MAX_SECONDS
    ]
    keys: set[str] = set()
    taken = 0
    for key in sorted(sentences, key=lambda key: hashlib.sha256(key.encode()).digest()):
        if taken >= VALIDATION_PROMPTS:
            break
        keys.add(key)
        taken += len(groups[key])
    return keys


def write_split(folder: Path, prompts: list[Prompt]) -> None:
    """Write one split afresh: the recordings and their metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.ogg"):
        stale.unlink()
    rows = []
    for prompt in prompts:
        encode_opus(prompt.samples, folder / prompt.file_name)
        rows.append(
            {"file_name": prompt.file_name, "text": prompt.text, "duration": round(prompt.seconds, 3)}
        )
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "metadata.jsonl").write_text("".join(lines))


def encode_opus(samples: np.ndarray, path: Path) -> None:
    """Encode 16 kHz mono as Ogg/Opus, the same bytes for the same samples."""
    options = {"application": "voip", "vbr": "on", "flags": "bitexact"}
    with av.open(str(path), "w", format="ogg", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libopus", rate=SAMPLING_RATE, layout="mono", options=options)
        stream.bit_rate = BIT_RATE
        stream.codec_context.open()
        size = stream.codec_context.frame_size
        pcm = np.round(samples * 32767).astype(np.int16)
        for start in range(0, len(pcm), size):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + size], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLING_RATE, start, Fraction(1, SAMPLING_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def license_text(path: Path) -> str:
    """Take the text of CC BY-SA 3.0 out of a Debian copyright file and undo its indentation."""
    paragraphs = path.read_text().split("\n\n")
    (text,) = [part for part in paragraphs if part.startswith("License: CC-BY-SA-3.0\n")]
    lines = [line.removeprefix(" ") for line in text.strip().splitlines()[1:]]
    body = "\n".join("" if line == "." else line for line in lines)
    return f"Creative Commons Attribution-ShareAlike 3.0 Unported (CC BY-SA 3.0)\n\n{body}\n"


if __name__ == "__main__":
    main()
