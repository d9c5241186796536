"""Checkpoints of a training run: saved, found whole, read again."""
