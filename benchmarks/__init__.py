"""Benchmarks against PyTorch's transformers; see README.md."""
