"""From encoder output to tokens: the decode loop, searches and logits processors."""
