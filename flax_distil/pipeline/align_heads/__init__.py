"""The heads of a student whose attention gives word timestamps; command ``align-heads``."""
