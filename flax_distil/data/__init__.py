"""Data sets of speech: examples, tables, streams and shards."""
