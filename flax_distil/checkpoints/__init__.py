"""Checkpoints: loading, students made from teachers, exports, and training checkpoints."""
