"""From log-mel features and tokens to hidden states: one forward pass, one cache."""
