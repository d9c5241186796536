"""The command line, which imports nothing slow until it knows the command."""
