"""What is counted is what compiled steps do."""

import dataclasses

import pytest

from flax_distil.model.config import WhisperConfig
from flax_distil.model.operations import StepWork, distillation_flop

TOY = WhisperConfig(
    vocab_size=2000, num_mel_bins=80, d_model=128, encoder_layers=2, decoder_layers=2,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=512, decoder_ffn_dim=512,
)  # fmt: skip


def layers(**counts):
    return dataclasses.replace(TOY, **counts)


@pytest.mark.parametrize(
    ("work", "compiled"),
    [
        ({"student": layers(decoder_layers=1), "teacher": TOY, "batch": 8, "teacher_encodes": True,
          "trains_encoder": True, "recomputes": True}, 168.452e9),
        ({"student": layers(decoder_layers=1), "teacher": TOY, "batch": 16}, 101.745e9),
        ({"student": TOY, "teacher": None, "batch": 8, "encodes": False}, 12.6584e9),
        ({"student": layers(encoder_layers=1), "teacher": TOY, "batch": 8, "teacher_encodes": True},
         73.0034e9),
    ],
    ids=["trained encoder, recomputed", "shared encoder", "labels and kept states", "two encoders"],
)  # fmt: skip
def test_a_step_is_counted_as_the_tpu_compiler_does_it(work, compiled):
    """``compiled`` is what ``flax-distil plan`` found in programs of TOY for v4-8, with 128 label tokens.

    Convolutions meet padding at both ends, which is not counted out: hence the tolerance.
    """
    assert sum(StepWork(tokens=128, **work).flop().values()) == pytest.approx(compiled, rel=1e-3)


def test_what_is_frozen_can_be_computed_in_int8():
    """By hand, per layer: 12 d² for a position of the encoder, 14 d² for a token and 2 d² for a state."""
    teacher = WhisperConfig.preset("large-v3")
    work = {"student": dataclasses.replace(teacher, decoder_layers=2), "batch": 1, "tokens": 128}
    square = 2 * 32 * 1280**2
    encoder, decoder = 1500 * 12 * square, (128 * 14 + 1500 * 2) * square
    assert StepWork(teacher=teacher, **work).int8_flop() == encoder + decoder
    assert StepWork(teacher=None, encodes=False, **work).int8_flop() == 0
    assert StepWork(teacher=teacher, trains_encoder=True, **work).int8_flop() == decoder


def test_large_v2_is_counted_as_it_was_by_hand():
    teacher = WhisperConfig.preset("large-v2")
    parts = distillation_flop(teacher, dataclasses.replace(teacher, decoder_layers=2), 64, 128)
    tera = {name: round(flop / 1e12, 1) for name, flop in parts.items()}
    assert tera == {"encoder": 145.5, "teacher_decoder": 35.4, "student_decoder": 8.4}
