"""Audio files and playlists that are wrong in some way, the same for the same seed."""

import functools
import io
import struct
from collections.abc import Callable, Iterator

import numpy as np
import soundfile

from tests.audio.encoders import PROMPTS, RATE, Case, muxed, written

ADDRESS = "http://127.0.0.1:9/segment.ts"
"""What playlists name; nothing may ever be asked for it."""

LOCAL = "/etc/hostname"
"""A file that playlists name; it may not be opened."""

WRITTEN: dict[str, Case] = {
    "wav": ("WAV", "PCM_16", RATE, 1),
    "float.wav": ("WAV", "FLOAT", RATE, 2),
    "ulaw.wav": ("WAV", "ULAW", 8_000, 1),
    "adpcm.wav": ("WAV", "MS_ADPCM", RATE, 1),
    "rf64": ("RF64", "PCM_16", RATE, 1),
    "w64": ("W64", "PCM_16", RATE, 1),
    "aiff": ("AIFF", "PCM_16", RATE, 1),
    "au": ("AU", "PCM_16", RATE, 1),
    "caf": ("CAF", "PCM_16", RATE, 1),
    "voc": ("VOC", "PCM_U8", RATE, 1),
    "sph": ("NIST", "PCM_16", RATE, 1),
    "flac": ("FLAC", "PCM_16", RATE, 1),
    "mp3": ("MP3", None, RATE, 2),
    "ogg": ("OGG", "VORBIS", RATE, 1),
    "opus": ("OGG", "OPUS", RATE, 1),
}
MUXED = {
    "m4a": ("ipod", "aac"),
    "aac": ("adts", "aac"),
    "mka": ("matroska", "aac"),
    "ts": ("mpegts", "aac"),
    "avi": ("avi", "mp2"),
    "wv": ("wv", "wavpack"),
    "mp2": ("mp2", "mp2"),
}
SIZES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def malformed_audio(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of files that are wrong in some way; some can still be heard.

    Args:
        seed: of all that is drawn.
        count: how many.
    """
    random = np.random.default_rng(seed)
    kinds = list(_encoded())
    for number in range(count):
        suffix = kinds[int(random.integers(len(kinds)))]
        change = CHANGES[number % len(CHANGES)]
        suffix, content = change(random, suffix, _encoded()[suffix])
        yield f"{number:04d}-{change.__name__}.{suffix}", content


@functools.cache
def _encoded() -> dict[str, bytes]:
    """Half a second of speech in every format."""
    speech, rate = soundfile.read(PROMPTS / "train" / "agent-incorrect.ogg", dtype="float32")
    assert rate == RATE
    speech = speech[:8_000]
    return {suffix: written(speech, case) for suffix, case in WRITTEN.items()} | {
        suffix: muxed(speech, *names) for suffix, names in MUXED.items()
    }


Change = Callable[[np.random.Generator, str, bytes], tuple[str, bytes]]


def truncated(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    return suffix, content[: int(random.integers(len(content)))]


def truncated_in_header(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    return suffix, content[: int(random.integers(1, 64))]


def flipped_bits(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    changed = bytearray(content)
    for place in random.integers(len(content), size=int(random.integers(1, 200))):
        changed[int(place)] ^= 1 << int(random.integers(8))
    return suffix, bytes(changed)


def flipped_header(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    changed = bytearray(content)
    for place in random.integers(min(len(content), 100), size=int(random.integers(1, 8))):
        changed[int(place)] = int(random.integers(256))
    return suffix, bytes(changed)


def extreme_number(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    """Some field of the header says as much as it can: sizes, rates, channels, lengths."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(4, min(len(content), 120) - 8))
        size = SIZES[int(random.integers(len(SIZES)))]
        order = "<>"[int(random.integers(2))]
        width = "HIQ"[int(random.integers(3))]
        number = size if width != "H" else size & 0xFFFF
        packed = struct.pack(order + width, number)
        changed[place : place + len(packed)] = packed
    return suffix, bytes(changed)


def wrong_suffix(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    others = [*_encoded(), "g722", "raw", "txt", "m3u8", "mp4", ""]
    return others[int(random.integers(len(others)))], content


def missing_stretch(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    first, last = sorted(int(place) for place in random.integers(len(content), size=2))
    return suffix, content[:first] + content[last:]


def noise(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    return suffix, content[: int(random.integers(0, 12))] + random.bytes(int(random.integers(0, 20_000)))


def mixture(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    """The beginning of one format and the rest of another."""
    kinds = list(_encoded().values())
    other = kinds[int(random.integers(len(kinds)))]
    return suffix, content[: int(random.integers(len(content)))] + other[int(random.integers(len(other))) :]


def constant(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    size = [0, 1, 2, 100, 5_000, 100_000][int(random.integers(6))]
    return suffix, bytes([[0, 0xFF, 0x20, 0x55][int(random.integers(4))]]) * size


def text(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    texts = [
        "speech",
        "<html><body>404</body></html>",
        '{"error": "none"}',
        "naïve\r\n" * 50,
        "\ufeffa,b\n1,2",
    ]
    encoding = ["utf-8", "latin-1", "utf-16"][int(random.integers(3))]
    return suffix, texts[int(random.integers(len(texts)))].encode(encoding, errors="replace")


def playlist(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    """A list of addresses or files, under its own name or that of audio."""
    target = [ADDRESS, LOCAL, "list.m3u8", "file:" + LOCAL][int(random.integers(4))]
    own = list(PLAYLISTS)[int(random.integers(len(PLAYLISTS)))]
    return [own, suffix][int(random.integers(2))], PLAYLISTS[own].format(target=target).encode()


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.9,\n{target}\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\n#EXTINF:9,\n{target}\n",
    "master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{target}\n",
    "mpd": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="a" '
        'bandwidth="9"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ),
    "ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\na={target}\n",
    "pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "xspf": '<?xml version="1.0"?><playlist><trackList><track><location>{target}</location></track>'
    "</trackList></playlist>",
}


def huge_wav(random: np.random.Generator, suffix: str, content: bytes) -> tuple[str, bytes]:
    """A WAV header that promises very many channels, bits, or samples per second."""
    channels = [1, 2, 255, 1024, 65_535][int(random.integers(5))]
    rate = [0, 1, 7, 96_000, 2**31, 2**32 - 1][int(random.integers(6))]
    bits = [0, 1, 8, 16, 24, 64, 65_535][int(random.integers(7))]
    form = struct.pack("<HHIIHH", 1, channels, rate, rate, 4, bits)
    head = io.BytesIO()
    head.write(b"RIFF\xff\xff\xff\x7fWAVEfmt " + struct.pack("<I", len(form)) + form)
    head.write(b"data" + struct.pack("<I", SIZES[int(random.integers(len(SIZES)))]))
    return "wav", head.getvalue() + content[:2_000]


CHANGES: list[Change] = [
    truncated, truncated_in_header, flipped_bits, flipped_header, extreme_number, wrong_suffix,
    missing_stretch, noise, mixture, constant, text, playlist, huge_wav,
]  # fmt: skip
