"""The architecture of a Whisper model, and the architectures that OpenAI published."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.fields import (
    Fields,
    Kind,
    check_fields,
    either,
    fraction,
    list_of,
    one_of,
    short_repr,
    whole_number,
)

_MULTILINGUAL_VOCABULARY = 51865
_ENGLISH_VOCABULARY = 51864
_LARGE_V3_VOCABULARY = 51866

_LAYERS = _HEADS = whole_number(1, 1024)
_WIDTH = whole_number(1, 2**14)
_FEED_FORWARD = whole_number(1, 2**18)
_TOKEN_ID = whole_number(0, 2**31 - 1)
_TOKEN_IDS: Kind = either(_TOKEN_ID, list_of(_TOKEN_ID))

CONFIG_FIELDS: Fields = {
    "activation_function": one_of("gelu"),
    "scale_embedding": one_of(False),
    "vocab_size": whole_number(1, 2**24),
    "num_mel_bins": one_of(80, 128),
    "d_model": _WIDTH,
    "encoder_layers": _LAYERS,
    "decoder_layers": _LAYERS,
    "encoder_attention_heads": _HEADS,
    "decoder_attention_heads": _HEADS,
    "encoder_ffn_dim": _FEED_FORWARD,
    "decoder_ffn_dim": _FEED_FORWARD,
    "max_source_positions": whole_number(1, 1500),
    "max_target_positions": whole_number(1, 2**16),
    "dropout": fraction(),
    "attention_dropout": fraction(),
    "activation_dropout": fraction(),
    "decoder_start_token_id": _TOKEN_ID,
    "bos_token_id": _TOKEN_IDS,
    "eos_token_id": _TOKEN_IDS,
    "pad_token_id": _TOKEN_IDS,
}
"""Fields of a ``config.json`` that this model needs. Sizes within these bounds are compared with the
tensors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropoutConfig:
    """Dropout.

    Attributes:
        dropout: Dropout rate of embeddings and of each block's output while training.
        attention_dropout: Dropout rate of attention probabilities while training.
        activation_dropout: Dropout rate inside the feed-forward blocks while training.

    Raises:
        InputError: If a rate is not between 0 and 1.
    """

    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(DropoutConfig):
            if not 0 <= getattr(self, field.name) < 1:
                raise InputError(f"{field.name} {getattr(self, field.name)} is not between 0 and 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhisperConfig(DropoutConfig):
    """Architecture of one Whisper model (field names as in Hugging Face ``config.json``).

    Attributes:
        vocab_size: Number of tokens, including special and timestamp tokens.
        num_mel_bins: Number of mel bins of the input, 80 or 128.
        d_model: Width of the encoder and the decoder.
        encoder_layers: Number of encoder layers.
        decoder_layers: Number of decoder layers.
        encoder_attention_heads: Number of heads of an encoder layer; it divides ``d_model``.
        decoder_attention_heads: Number of heads of a decoder layer; it divides ``d_model``.
        encoder_ffn_dim: Feed-forward width of the encoder.
        decoder_ffn_dim: Feed-forward width of the decoder.
        max_source_positions: Number of encoder positions, of 20 ms each.
        max_target_positions: Number of decoder positions.

    Raises:
        InputError: If a width is not divisible by its number of heads.

    Source: arXiv 2212.04356, table 1; ``WhisperConfig`` of transformers.
    """

    vocab_size: int
    num_mel_bins: int = 80
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_source_positions: int = 1500
    max_target_positions: int = 448

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if self.d_model % heads:
                raise InputError(f"d_model {self.d_model} is not divisible by {side}_attention_heads {heads}")

    @classmethod
    def preset(cls, name: str) -> "WhisperConfig":
        """Return a published architecture by name: ``tiny.en`` … ``large-v3-turbo`` (see ``PRESETS``)."""
        short = name.rsplit("/", 1)[-1].removeprefix("whisper-")
        if short not in PRESETS:
            raise InputError(f"unknown Whisper size {name!r}: expected one of {', '.join(PRESETS)}")
        return PRESETS[short]

    @classmethod
    def from_huggingface(cls, values: Mapping[str, Any], *, name: str = "config.json") -> "WhisperConfig":
        """Read a Hugging Face ``config.json``; unknown keys are ignored, and null counts as absent.

        Args:
            values: Contents of the parsed file.
            name: Name of the file in messages.

        Raises:
            InputError: If it is not the configuration of a Whisper model, a field is missing or not of the
                kind in :data:`CONFIG_FIELDS`, or a width is not divisible by its number of heads.
        """
        if values.get("model_type", "whisper") != "whisper":
            raise InputError(
                f"{name}: expected a whisper checkpoint, got model_type {short_repr(values['model_type'])}"
            )
        fields = dataclasses.fields(cls)
        required = [field.name for field in fields if field.default is dataclasses.MISSING]
        missing = sorted(field for field in required if values.get(field) is None)
        if missing:
            raise InputError(f"{name} lacks {', '.join(missing)}: is it a Whisper checkpoint?")
        check_fields(values, CONFIG_FIELDS, name=name)
        given = {field.name: values[field.name] for field in fields if values.get(field.name) is not None}
        try:
            return cls(**given)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def to_huggingface(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary with the names of Hugging Face ``config.json``."""
        dropouts = dataclasses.asdict(DropoutConfig())
        return dict(sorted(dataclasses.asdict(self).items(), key=lambda item: item[0] in dropouts))

    @property
    def window_samples(self) -> int:
        """Number of audio samples (16 kHz) of a window of the encoder: 480,000 for 1500 positions."""
        return 320 * self.max_source_positions

    @property
    def window_seconds(self) -> float:
        """Length in seconds of a window of the encoder: 30 for 1500 positions."""
        return self.max_source_positions / 50


def _published(
    width: int,
    heads: int,
    layers: int,
    *,
    vocabulary: int,
    mel_bins: int = 80,
    decoder_layers: int | None = None,
) -> WhisperConfig:
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=mel_bins,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=decoder_layers or layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
    )


_SIZES = {"tiny": (384, 6, 4), "base": (512, 8, 6), "small": (768, 12, 12), "medium": (1024, 16, 24)}

PRESETS: dict[str, WhisperConfig] = {
    **{name: _published(*size, vocabulary=_MULTILINGUAL_VOCABULARY) for name, size in _SIZES.items()},
    **{f"{name}.en": _published(*size, vocabulary=_ENGLISH_VOCABULARY) for name, size in _SIZES.items()},
    "large": _published(1280, 20, 32, vocabulary=_MULTILINGUAL_VOCABULARY),
    "large-v2": _published(1280, 20, 32, vocabulary=_MULTILINGUAL_VOCABULARY),
    "large-v3": _published(1280, 20, 32, vocabulary=_LARGE_V3_VOCABULARY, mel_bins=128),
    "large-v3-turbo": _published(
        1280, 20, 32, vocabulary=_LARGE_V3_VOCABULARY, mel_bins=128, decoder_layers=4
    ),
}
"""The published architectures, by the part of the name after ``openai/whisper-``."""
