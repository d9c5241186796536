"""flax_distil: distil OpenAI Whisper into small, fast students with JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_distil.pipeline.pipeline import Pipeline as FlaxWhisperPipeline
    from flax_distil.pipeline.writers.write_transcript import write_transcript

__all__ = ["FlaxWhisperPipeline", "__version__", "write_transcript"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the pipeline or the writer, and JAX with it, when it is first asked for."""
    if name == "FlaxWhisperPipeline":
        from flax_distil.pipeline.pipeline import Pipeline as FlaxWhisperPipeline

        return FlaxWhisperPipeline
    if name == "write_transcript":
        from flax_distil.pipeline.writers.write_transcript import write_transcript

        return write_transcript
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
