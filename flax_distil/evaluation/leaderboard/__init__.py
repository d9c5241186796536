"""Evaluate as the Open ASR Leaderboard does: its sets, decoding, timing, scores and files."""
