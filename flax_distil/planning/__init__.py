"""Estimate the memory and time of a training job on a TPU that is not attached."""
