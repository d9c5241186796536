"""Memory and time of a training job on a TPU that is not there."""
