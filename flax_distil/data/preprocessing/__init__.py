"""Prepare examples for training: filters, segmentation, packing, labels, statistics."""
