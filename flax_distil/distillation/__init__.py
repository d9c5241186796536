"""From batches and a teacher to a student: the loss, the step and the training loop."""
