"""flax_distil: distil OpenAI Whisper into small, fast students with JAX and Flax."""

__version__ = "0.1.0"
