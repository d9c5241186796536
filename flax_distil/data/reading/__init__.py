"""From what a user names to rows: files, folders, the Hub, buckets and servers, as tables or in shards."""

import os

# Before datasets is imported: whenever it opens a file, even one here, it would tell a server of it.
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
