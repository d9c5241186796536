"""From pairs of texts to numbers."""
