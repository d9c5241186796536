"""Floating-point operations of Whisper, counted: two per multiply-add of every matrix product."""

from flax_distil.model import WhisperConfig


def encoder_flop(config: WhisperConfig, batch: int) -> float:
    """Count one forward pass over 30 s windows: convolutions, projections, attention, feed-forward."""
    width, positions = config.d_model, config.max_source_positions
    convolutions = 2 * 3 * (2 * positions * config.num_mel_bins * width + positions * width * width)
    projections = 2 * positions * (4 * width * width + 2 * width * config.encoder_ffn_dim)
    attention = 2 * 2 * positions * positions * width
    return batch * (convolutions + config.encoder_layers * (projections + attention))


def decoder_flop(config: WhisperConfig, batch: int, tokens: int) -> float:
    """Count one forward pass with teacher forcing, the vocabulary projection included."""
    width, positions = config.d_model, config.max_source_positions
    own = 2 * tokens * 4 * width * width + 2 * 2 * tokens * tokens * width
    cross = 2 * (2 * tokens + 2 * positions) * width * width + 2 * 2 * tokens * positions * width
    forward = 2 * tokens * 2 * width * config.decoder_ffn_dim
    return batch * (config.decoder_layers * (own + cross + forward) + 2 * tokens * width * config.vocab_size)


def distillation_flop(
    teacher: WhisperConfig, student: WhisperConfig, batch: int, tokens: int
) -> dict[str, float]:
    """Count a step with a shared frozen encoder; a backward pass costs two forward ones.

    Its one saving, the gradient of the encoder states, which nobody needs, is left uncounted: both
    frameworks skip it.
    """
    width, positions = student.d_model, student.max_source_positions
    unneeded = batch * student.decoder_layers * 2 * 2 * positions * width * width
    return {
        "encoder": encoder_flop(teacher, batch),
        "teacher_decoder": decoder_flop(teacher, batch, tokens),
        "student_decoder": 3 * decoder_flop(student, batch, tokens) - unneeded,
    }
