"""One writer for each format of an export."""
