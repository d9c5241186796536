"""What a run records of itself: metrics, goodput, settings, profiles."""
