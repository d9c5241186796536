"""Read bytes at addresses; failed requests are repeated."""
