"""Make training batches from examples; reading can be resumed at any batch."""
