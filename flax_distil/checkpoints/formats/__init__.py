"""Checkpoint formats: how each names, lays out and stores the tensors of Whisper."""
