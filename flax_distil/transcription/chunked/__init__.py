"""Long recordings in overlapping chunks that are decoded in parallel."""
