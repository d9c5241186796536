"""Checkpoint formats: how each of them names, arranges and stores the tensors of Whisper."""
