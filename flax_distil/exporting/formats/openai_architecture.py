"""Architectures that openai/whisper and whisper.cpp can run: both fix sizes that Hugging Face leaves open."""

from flax_distil.core.errors import InputError
from flax_distil.model.config import WhisperConfig

_POSITIONS = 1500  # of 30 s, the length of every window of both programs


def check_openai_architecture(config: WhisperConfig, runtime: str) -> None:
    """Check that a model has the fixed sizes of openai/whisper; numbers of layers and heads are free.

    Args:
        config: The architecture.
        runtime: Name of the program in the message.

    Raises:
        InputError: If the feed-forward width is not four times the model's, or a window is not 30 s.
    """
    for side in ("encoder", "decoder"):
        width = getattr(config, f"{side}_ffn_dim")
        if width != 4 * config.d_model:
            raise InputError(
                f"{runtime} has feed-forward blocks of four times the model's width: {side}_ffn_dim {width} "
                f"is not 4 * {config.d_model}, so export this model to another format"
            )
    if config.max_source_positions != _POSITIONS:
        raise InputError(
            f"{runtime} processes 30 s at a time and would lose the end of each window of this model, which "
            f"has max_source_positions {config.max_source_positions} instead of {_POSITIONS}: "
            "export it to another format"
        )
