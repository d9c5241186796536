"""Open the data sets that a user names, as tables or as shards."""
