"""Where transcripts go: files in several formats, and the terminal."""
