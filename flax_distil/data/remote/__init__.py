"""Read files at addresses, and repeat failed requests."""
