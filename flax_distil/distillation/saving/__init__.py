"""When a run saves, what its checkpoints say, and what it leaves at its end."""
