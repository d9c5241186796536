"""Any recording in, transcripts out: the Python class and the commands that transcribe."""
