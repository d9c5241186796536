"""Real speech in small: recorded prompts from the repository's example corpus."""

import dataclasses
import json
from pathlib import Path

import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table
from flax_distil.text.tokenizer import WhisperTokenizer

CORPUS = Path(__file__).parents[2] / "examples" / "asterisk_prompts" / "validation"


@pytest.fixture(scope="session")
def corpus_rows() -> list[dict]:
    """The first rows of the corpus: text, duration and the path of the recording."""
    lines = (CORPUS / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:11]
    rows = [json.loads(line) for line in lines]
    return [{"audio": str(CORPUS / row.pop("file_name")), **row} for row in rows]


@pytest.fixture(scope="session")
def flac_rows(corpus_rows, tmp_path_factory) -> list[dict]:
    """The same recordings as FLAC files, one of them broken and one empty; durations not told."""
    folder = tmp_path_factory.mktemp("flac")
    rows = []
    for number, row in enumerate(corpus_rows):
        path = folder / f"{number:02d}.flac"
        soundfile.write(path, decode_audio(row["audio"]), SAMPLING_RATE)
        rows.append({"audio": path.name, "text": row["text"]})
    (folder / "03.flac").write_bytes(b"this is not audio")
    (folder / "07.flac").write_bytes(b"")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{**row, "audio": str(folder / row["audio"])} for row in rows]


@pytest.fixture(scope="session")
def speech(corpus_rows, tmp_path_factory) -> SpeechDataset:
    """Eleven readable recordings with texts and durations."""
    path = tmp_path_factory.mktemp("speech") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in corpus_rows))
    return load_table(DatasetSpec(name=str(path), text_column="text"))


@pytest.fixture(scope="session")
def flawed(flac_rows) -> SpeechDataset:
    """Eleven recordings without durations; rows 3 and 7 cannot be read."""
    path = Path(flac_rows[0]["audio"]).parent / "rows.jsonl"
    return load_table(DatasetSpec(name=str(path), text_column="text"))


@pytest.fixture(scope="session")
def train(prompts_dir) -> SpeechDataset:
    """The 369 prompts of the training split, all spoken by one person."""
    data = load_table(DatasetSpec(name=str(prompts_dir / "train"), text_column="text"))
    return dataclasses.replace(
        data.with_columns({"speaker": ["Allison"] * len(data)}), speaker_column="speaker"
    )


@pytest.fixture(scope="session")
def english_tokenizer(tiny_en_dir) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(tiny_en_dir)


@pytest.fixture(scope="session")
def multilingual_tokenizer(base_dir) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(base_dir)


@pytest.fixture(scope="session")
def labels(english_tokenizer) -> LabelBuilder:
    return LabelBuilder(english_tokenizer, LabelConfig())
