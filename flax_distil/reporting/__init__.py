"""One page about a run: what it learned, how fast, from what, and where it is."""
