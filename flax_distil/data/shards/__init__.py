"""Files of rows that are read from front to back: one reader for each format, and the writer."""
