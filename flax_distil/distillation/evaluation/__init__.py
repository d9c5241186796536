"""Evaluation of the student during training."""
