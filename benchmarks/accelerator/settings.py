"""How large the models and batches of the check are."""

import dataclasses

from flax_distil.model.config import WhisperConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Shapes of one size of the check.

    Attributes:
        width: Width of encoder and decoder.
        layers: Layers of the teacher's encoder and decoder.
        heads: Attention heads of a layer.
        mel_bins: Mel bins of the input.
        train_batches: Samples of a training step, from the largest; the first that fits the memory counts.
        labels: Label tokens of a sample.
        windows: Windows of a batch that is decoded.
        new_tokens: Tokens that are decoded of each window.
        rounds: How often each figure is measured after its first call.
    """

    width: int
    layers: int
    heads: int
    mel_bins: int
    train_batches: tuple[int, ...]
    labels: int
    windows: int
    new_tokens: int
    rounds: int

    def teacher(self) -> WhisperConfig:
        """Return the shape of the teacher."""
        return WhisperConfig(
            vocab_size=51864 if self.mel_bins == 80 else 51866,
            num_mel_bins=self.mel_bins,
            d_model=self.width,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            encoder_ffn_dim=4 * self.width,
            decoder_ffn_dim=4 * self.width,
        )

    def student(self) -> WhisperConfig:
        """Return the shape of the student: the whole encoder and two decoder layers."""
        return dataclasses.replace(self.teacher(), decoder_layers=2)


SIZES = {
    "large-v3": Size(
        width=1280, layers=32, heads=20, mel_bins=128, train_batches=(64, 32, 16, 8), labels=128, windows=64,
        new_tokens=64, rounds=5,
    ),
    "toy": Size(
        width=64, layers=2, heads=2, mel_bins=80, train_batches=(2,), labels=16, windows=2, new_tokens=8,
        rounds=2,
    ),
}  # fmt: skip
"""``large-v3`` has the published shapes; ``toy`` shows on any machine that the check itself works."""
