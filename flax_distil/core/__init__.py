"""Code that every room shares: array types, tree paths, the input error, prefetching, output folders."""
