"""Students in Transformers.js say what they say here, and time their words as here, but for one token."""

from pathlib import Path

import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.nested import build
from flax_distil.exporting.config import ExportConfig
from flax_distil.exporting.job import run
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.verification.job import Verification
from flax_distil.metrics.word_errors import word_errors
from flax_distil.pipeline.pipeline import Pipeline
from tests.exporting import transformers_js

pytestmark = pytest.mark.slow


def export(source: Path, folder: Path) -> Path:
    values = {"format": ["onnx"], "quantization": ["fp32+fp16+q8"], "output_dir": str(folder)}
    run(build(ExportConfig, model_name_or_path=str(source), **values))
    return folder


@pytest.fixture(scope="module", params=["tiny_en_student", "base_student"])
def student(request) -> Path:
    transformers_js.skip_if_absent()
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory) -> Path:
    return export(student, tmp_path_factory.mktemp("onnx") / student.name)


@pytest.fixture(scope="module")
def verification(student, held_out) -> Verification:
    return Verification.prepare(ExportSource.from_files(str(student)), list(map(str, held_out)))


def transcribe(exported: Path, verification: Verification, dtype: str, folder: Path) -> list[str]:
    clips = [one.clip for one in verification.expected]
    options = {} if clips[0].language is None else {"language": "english", "task": "transcribe"}
    outputs = transformers_js.transcribe(
        exported, dtype, [clip.samples_W for clip in clips], folder, **options
    )
    return [output["text"].strip() for output in outputs]


def test_in_float32_all_held_out_prompts_have_our_texts(exported, verification, tmp_path):
    texts = transcribe(exported, verification, "fp32", tmp_path)
    assert texts == [one.text for one in verification.expected]


def test_in_eight_bits_the_word_error_rate_moves_by_less_than_a_point(
    exported, verification, held_out, tmp_path
):
    texts = transcribe(exported, verification, "q8", tmp_path)
    said = {str(path): text for path, text in held_out.items()}
    references = [said[one.clip.name] for one in verification.expected]
    ours, theirs = (
        word_errors(references, hypotheses, verification.normalize).wer
        for hypotheses in ([one.text for one in verification.expected], texts)
    )
    assert abs(theirs - ours) < 1


def test_words_are_timed_as_here_but_for_one_token(tiny_en_dir, prompts_dir, tmp_path):
    """Transformers.js leaves out the row of attention that predicts the first token, so all are one late."""
    transformers_js.skip_if_absent()
    recording = prompts_dir / "validation" / "agent-alreadyon.ogg"
    exported = export(tiny_en_dir, tmp_path / "tiny.en")
    samples = [decode_audio(recording)]
    (theirs,) = transformers_js.transcribe(exported, "fp32", samples, tmp_path, return_timestamps="word")
    ours = Pipeline(str(tiny_en_dir))(str(recording), return_timestamps="word")
    assert [chunk["text"].strip() for chunk in theirs["chunks"]] == [
        chunk["text"].strip() for chunk in ours["chunks"]
    ]
    for their_chunk, our_chunk in zip(theirs["chunks"], ours["chunks"], strict=True):
        if our_chunk["text"].endswith("."):  # the next token is the full stop, whose time is not shown
            continue
        assert their_chunk["timestamp"][0] == pytest.approx(our_chunk["timestamp"][1], abs=0.1)
