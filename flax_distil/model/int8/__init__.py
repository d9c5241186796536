"""Layers with int8 weights."""
