"""Shards, which are files of rows that are read from front to back: readers of all formats, and a writer."""
