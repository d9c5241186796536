"""A corpus in, the same corpus with the words of a teacher out."""
