"""Code that all rooms share: array types, tree paths, the input error, prefetching, output folders."""
