"""Sounds in which nobody speaks, made by generators: for evaluation and for training."""
