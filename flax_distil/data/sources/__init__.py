"""From whatever names a data set to a table of examples or to shards of one."""
