"""From examples to examples: filters, segmentation, packing, labels, statistics."""
