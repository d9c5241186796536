"""Checkpoints written in the formats of other Whisper runtimes; the command ``export``."""
