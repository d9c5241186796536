"""Exports read back by the programs that they are for, and compared with the checkpoint."""
