"""Count the floating-point operations of Whisper: two per multiply-add of every matrix product."""

import dataclasses

from flax_distil.model.config import WhisperConfig

_MEL_WINDOW, _MEL_FREQUENCIES = 400, 201


def mel_flop(config: WhisperConfig, batch: int) -> float:
    """Count the log-mel of 30 s windows, with the Fourier transform as two matrix products (as on a TPU)."""
    frames = 2 * config.max_source_positions
    return 2.0 * batch * frames * _MEL_FREQUENCIES * (2 * _MEL_WINDOW + config.num_mel_bins)


def encoder_attention_flop(config: WhisperConfig, batch: int) -> float:
    """Count both products of the encoder's attention (scores, weighted values), which may run in a kernel."""
    return 4.0 * batch * config.encoder_layers * config.max_source_positions**2 * config.d_model


def encoder_flop(config: WhisperConfig, batch: int) -> float:
    """Count one forward pass over 30 s windows: convolutions, projections, attention, feed-forward."""
    width, positions = config.d_model, config.max_source_positions
    second_convolution = 2 * 3 * positions * width * width
    return first_convolution_flop(config, batch) + batch * second_convolution + _encoder_layers(config, batch)


def first_convolution_flop(config: WhisperConfig, batch: int) -> float:
    """Count the first convolution, over mel frames."""
    return 2.0 * 3 * batch * 2 * config.max_source_positions * config.num_mel_bins * config.d_model


def _encoder_layers(config: WhisperConfig, batch: int) -> float:
    width, positions = config.d_model, config.max_source_positions
    projections = 2 * positions * (4 * width * width + 2 * width * config.encoder_ffn_dim)
    return batch * config.encoder_layers * projections + encoder_attention_flop(config, batch)


def encoder_int8_flop(config: WhisperConfig, batch: int) -> float:
    """Count what of one pass of an encoder with int8 weights is computed in int8: its projections."""
    return _encoder_layers(config, batch) - encoder_attention_flop(config, batch)


def vocabulary_flop(config: WhisperConfig, batch: int, tokens: int) -> float:
    """Count the projection of ``tokens`` hidden states per sample onto the vocabulary."""
    return 2.0 * batch * tokens * config.d_model * config.vocab_size


def decoder_flop(config: WhisperConfig, batch: int, tokens: int) -> float:
    """Count one forward pass with teacher forcing, including the vocabulary projection.

    Cross-attention is counted with keys and values that are projected from the encoder states; the decoder
    does this if there are at least as many tokens as a head has features.
    """
    width, positions = config.d_model, config.max_source_positions
    own = 2 * tokens * 4 * width * width + 2 * 2 * tokens * tokens * width
    cross = 2 * (2 * tokens + 2 * positions) * width * width + 2 * 2 * tokens * positions * width
    forward = 2 * tokens * 2 * width * config.decoder_ffn_dim
    layers = batch * config.decoder_layers * (own + cross + forward)
    return layers + vocabulary_flop(config, batch, tokens)


def decoder_int8_flop(config: WhisperConfig, batch: int, tokens: int) -> float:
    """Count the same for one pass of a decoder with teacher forcing."""
    width, positions = config.d_model, config.max_source_positions
    attention = 2 * tokens * 4 * width * width + 2 * (2 * tokens + 2 * positions) * width * width
    forward = 2 * tokens * 2 * width * config.decoder_ffn_dim
    return float(batch * config.decoder_layers * (attention + forward))


def distillation_flop(
    teacher: WhisperConfig, student: WhisperConfig, batch: int, tokens: int
) -> dict[str, float]:
    """Count a training step with a shared frozen encoder, starting from mel frames; see :class:`StepWork`."""
    return StepWork(student=student, teacher=teacher, batch=batch, tokens=tokens, with_mel=False).flop()


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepWork:
    """What a training step computes.

    Attributes:
        student: Architecture of the student.
        teacher: Architecture of the teacher; None if the loss has no teacher.
        batch: Number of samples.
        tokens: Number of label positions per sample, all of which count in the loss.
        encodes: Whether the student's encoder runs; it does not where its outputs are cached on disk.
        teacher_encodes: Whether the teacher runs an encoder of its own.
        trains_encoder: Whether the encoder's weights are trained.
        trains_decoder: Whether the decoder's weights are trained. Where they are not, gradients still pass
            through the decoder to the token embedding, which is trained.
        with_kl: Whether the teacher's logits are needed.
        recomputes: Whether the backward pass computes every layer again (gradient checkpointing).
        with_mel: Whether the log-mel spectrogram is computed on the device.
    """

    student: WhisperConfig
    teacher: WhisperConfig | None
    batch: int
    tokens: int
    encodes: bool = True
    teacher_encodes: bool = False
    trains_encoder: bool = False
    trains_decoder: bool = True
    with_kl: bool = True
    recomputes: bool = False
    with_mel: bool = True

    def flop(self) -> dict[str, float]:
        """Return the FLOPs by part; a backward pass costs a forward pass per operand that needs a gradient.

        The gradient of frozen encoder outputs is not needed, and is left out.
        """
        student, batch, tokens = self.student, self.batch, self.tokens
        width, positions = student.d_model, student.max_source_positions
        decoder = decoder_flop(student, batch, tokens)
        projection = vocabulary_flop(student, batch, tokens)
        differentiated = decoder if self.trains_decoder else projection
        parts = {"student_decoder": 2.0 * decoder + differentiated}
        if not self.trains_encoder:
            parts["student_decoder"] -= batch * student.decoder_layers * 2 * 2 * positions * width * width
        if self.encodes:
            parts["encoder"] = encoder_flop(student, batch)
            if self.trains_encoder:  # the audio needs no gradient
                parts["encoder"] = 3 * parts["encoder"] - first_convolution_flop(student, batch)
        if self.recomputes:
            self._recompute(parts)
        if self.teacher is not None:
            unneeded = 0.0 if self.with_kl else vocabulary_flop(self.teacher, batch, tokens)
            parts["teacher_decoder"] = decoder_flop(self.teacher, batch, tokens) - unneeded
            if self.teacher_encodes:
                parts["teacher_encoder"] = encoder_flop(self.teacher, batch)
        if self.with_mel and (self.encodes or self.teacher_encodes):
            parts["log_mel"] = mel_flop(student, batch)
            teacher = self.teacher if self.teacher_encodes else None
            if teacher is not None and teacher.max_source_positions != positions:  # has own features
                parts["log_mel"] += mel_flop(teacher, batch)
        return parts

    def int8_flop(self) -> float:
        """Return how many of these FLOPs are projections of the teacher and of a frozen encoder."""
        total = 0.0
        if self.encodes and not self.trains_encoder:
            total += encoder_int8_flop(self.student, self.batch)
        if self.teacher is not None:
            total += decoder_int8_flop(self.teacher, self.batch, self.tokens)
            total += encoder_int8_flop(self.teacher, self.batch) if self.teacher_encodes else 0.0
        return total

    def _recompute(self, parts: dict[str, float]) -> None:
        """Add the second forward pass of the layers, without its last product, whose result is not used."""
        student, batch, tokens = self.student, self.batch, self.tokens
        layers = decoder_flop(student, batch, tokens) - vocabulary_flop(student, batch, tokens)
        last = 2 * student.d_model * student.decoder_ffn_dim * student.decoder_layers
        parts["student_decoder"] += layers - batch * tokens * last
        if self.trains_encoder:
            last = 2 * student.d_model * student.encoder_ffn_dim * student.encoder_layers
            parts["encoder"] += _encoder_layers(student, batch) - batch * student.max_source_positions * last


def decode_step_flop(config: WhisperConfig, batch: int, slots: int, *, beams: int = 1) -> float:
    """Count one decoding step, which computes a token for every sample and beam, with a cache of ``slots``.

    The beams of a sample share its slots. Cross-attention uses the encoder states themselves (see
    ``DecoderLayer.cross_attend``): queries are projected back, and for every head both products of attention
    have the width of the model.
    """
    width, heads = config.d_model, config.decoder_attention_heads
    own = 2 * 4 * width * width + 2 * 2 * slots * width
    cross = 2 * 4 * width * width + 2 * 2 * heads * config.max_source_positions * width
    forward = 2 * 2 * width * config.decoder_ffn_dim
    layers = batch * beams * config.decoder_layers * (own + cross + forward)
    return layers + vocabulary_flop(config, batch * beams, 1)


def decode_step_bytes(config: WhisperConfig, batch: int, slots: int, bytes_per_element: int) -> float:
    """Count the bytes that one decoding step must read: weights, caches, and the encoder states per layer.

    ``slots`` is the number per sample; the beams of a sample share them.
    """
    width = config.d_model
    attention = 2 * 4 * width * width
    weights = config.decoder_layers * (attention + 2 * width * config.decoder_ffn_dim)
    embedding = config.vocab_size * width
    cached = config.decoder_layers * batch * width * (2 * slots + config.max_source_positions)
    return float(bytes_per_element * (weights + embedding + cached))
