"""Where a run reports its metrics to, beside ``metrics.jsonl``: one file per service."""
