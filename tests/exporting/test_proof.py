"""Each exported student in the program that it is for, on the 80 held-out prompts.

In float32 it says what it says here. whisper.cpp rounds weights and factors to float16 and computes GELU by
its approximation with tanh: where it says something else, so do we with these weights and this GELU, or two
tokens are as good as equal. Quantized, a model makes as many word errors, to a point; a student of little
training, which is sure of few words, to two if chance explains them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import mlx.core as mx
import numpy as np
import pytest

from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.exporting.choices import Choice
from flax_distil.exporting.format_table import FORMATS
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.verification.compare import Comparison, compare, comparison_table
from flax_distil.exporting.verification.job import Verification
from flax_distil.metrics.bootstrap import matched_pairs_p_value
from flax_distil.metrics.word_errors import word_errors
from flax_distil.model import layers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # of OpenAI's tokenizer
]

STUDENTS = ("tiny_en_student", "base_student")
TEACHERS = ("tiny_en_dir", "base_dir")
EXACT = {
    "hf": "float32",
    "ct2": "float32",
    "ggml": "f16",  # the newest pywhispercpp aborts on float32 models
    "openai": "float32",
    "onnx": "fp32",
    "mlx": "float32",
}
ROUNDED = (("ct2", "int8"), ("ggml", "q8_0"), ("ggml", "q5_0"), ("onnx", "q8"))
MOST_LOGITS = 1e-3
MOST_GAP = 0.05
"""Difference of two log-probabilities that rounding of factors to float16 may turn over."""

LEAST_CHANCE = 0.05
"""P-value of the matched-pairs test below which other word errors of a student are not put down to chance."""

MLX_PROMPTS = 4
"""Number of prompts for mlx-whisper, which takes 20 s for a window where it has no GPU of Apple's."""


@pytest.fixture(scope="module", params=STUDENTS)
def model(request) -> tuple[str, ExportSource]:
    return request.param, ExportSource.from_files(str(request.getfixturevalue(request.param)))


@pytest.fixture(scope="module")
def verification(model, held_out) -> Verification:
    return Verification.prepare(model[1], [str(path) for path in held_out])


def compared(source: ExportSource, verification: Verification, name: str, quantization: str, folder: Path):
    FORMATS[name].writer.write(source, folder, quantization=quantization)
    choice = Choice(name=name, quantization=quantization)
    expected = verification.expected[: MLX_PROMPTS if name == "mlx" else None]
    found = compare(choice, folder, expected, verification.normalize)
    print(comparison_table([found]))
    assert found.recordings == len(expected), f"{FORMATS[name].runtime} is not installed"
    return found


@pytest.fixture
def positions_of_the_checkpoint(model, monkeypatch) -> None:
    """Give mlx-whisper the checkpoint's positions of the encoder, which are rounded to float16.

    It computes them in float32, and log-probabilities differ by 6e-3 for that alone.
    """
    positions = model[1].read("model.encoder.embed_positions.weight").astype("float32")
    monkeypatch.setattr("mlx_whisper.whisper.sinusoids", lambda length, width: mx.array(positions))


@pytest.mark.usefixtures("positions_of_the_checkpoint")
@pytest.mark.parametrize("name", [name for name in EXACT if name in FORMATS])
def test_in_float32_a_program_says_what_we_say(model, verification, name, tmp_path):
    _, source = model
    found = compared(source, verification, name, EXACT[name], tmp_path)
    theirs = {difference.recording: difference.theirs for difference in found.differences}
    assert name == "ggml" or not theirs
    for recording, gap in gaps_by_ggml_arithmetic(source, theirs).items():
        assert gap < MOST_GAP, recording
    if found.logit_difference is not None:
        assert found.logit_difference < MOST_LOGITS


def gaps_by_ggml_arithmetic(source: ExportSource, theirs: Mapping[str, str]) -> dict[str, float]:
    """Return by how much we prefer another token than whisper.cpp, with its weights and its GELU.

    Args:
        source: The checkpoint.
        theirs: Texts of whisper.cpp by recording.

    Returns:
        Difference of the log-probabilities of the first token that differs, by recording; 0 where none does.
    """
    if not theirs:
        return {}
    rounded = dataclasses.replace(source, read=lambda name: source.read(name).astype("float16"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "twice_gelu", lambda x: 2 * jax.nn.gelu(x, approximate=True))
        jax.clear_caches()
        expected = Verification.prepare(rounded, list(theirs)).expected
    jax.clear_caches()
    tokenizer, _ = read_tokenizer(source.files)
    gaps = dict.fromkeys(theirs, 0.0)
    for one in expected:
        tokens = tokenizer.encode(f" {theirs[one.clip.name]}", with_timestamps=False)
        pairs = itertools.zip_longest(one.tokens, tokens, fillvalue=tokenizer.special.eot)
        different = ((place, *pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
        place, our_token, their_token = next(different, (0, 0, 0))
        assert one.logits_TV is not None
        gaps[one.clip.name] = float(one.logits_TV[place, our_token] - one.logits_TV[place, their_token])
        print(f"{one.clip.name}: {one.text!r}, {theirs[one.clip.name]!r}, {gaps[one.clip.name]:.4f} apart")
    return gaps


@pytest.mark.parametrize("model", TEACHERS + STUDENTS, indirect=True)
@pytest.mark.parametrize(("name", "quantization"), [pair for pair in ROUNDED if pair[0] in FORMATS])
def test_quantized_a_model_makes_as_many_errors(model, verification, held_out, name, quantization, tmp_path):
    found = compared(model[1], verification, name, quantization, tmp_path)
    texts = {str(path): text for path, text in held_out.items()}
    references = [texts[one.clip.name] for one in verification.expected]
    said = ([one.text for one in verification.expected], their_texts(verification, found))
    counts = [word_errors(references, texts, verification.normalize) for texts in said]
    ours_N, theirs_N = (errors_by_recording(references, texts, verification.normalize) for texts in said)
    more, chance = counts[1].wer - counts[0].wer, matched_pairs_p_value(theirs_N - ours_N)
    print(f"WER of {model[0]}: {counts[0].wer:.2f} %, {more:+.2f} as {name}:{quantization}, p {chance:.2f}")
    assert abs(more) < 1 or (model[0] in STUDENTS and abs(more) < 2 and chance > LEAST_CHANCE)


def errors_by_recording(
    references: list[str], texts: list[str], normalize: Callable[[str], str]
) -> np.ndarray:
    counts = [word_errors([one], [text], normalize) for one, text in zip(references, texts, strict=True)]
    return np.array([one.errors for one in counts], float)


def their_texts(verification: Verification, found: Comparison) -> list[str]:
    other = {difference.recording: difference.theirs for difference in found.differences}
    return [other.get(one.clip.name, one.text) for one in verification.expected]


def test_a_wrong_weight_is_found(model, verification, tmp_path):
    """A comparison that could not fail would prove nothing."""
    source = model[1]

    def read(name):
        return source.read(name) * (-1 if name == "model.decoder.layers.1.fc2.weight" else 1)

    few = dataclasses.replace(verification, expected=verification.expected[:3])
    folder = tmp_path / "ct2"
    folder.mkdir()
    FORMATS["ct2"].writer.write(dataclasses.replace(source, read=read), folder, quantization="float32")
    choice = Choice(name="ct2", quantization="float32")
    found = compare(choice, folder, few.expected, few.normalize)
    assert found.failed
    assert found.logit_difference is not None
    assert found.logit_difference > 100 * MOST_LOGITS
