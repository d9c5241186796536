"""What a training run needs before its first step: data, models and compiled steps."""
