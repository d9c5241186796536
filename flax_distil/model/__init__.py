"""The Whisper model: log-mel features and tokens to hidden states, with one forward pass and one cache."""
