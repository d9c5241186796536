"""Compare pairs of texts and compute metrics."""
