"""From examples to training batches that can be resumed at any step."""
