"""What a training run would see of its data, before the run."""
