"""From what a user names to rows: files, folders, the Hub, buckets and servers, as tables or in shards."""
