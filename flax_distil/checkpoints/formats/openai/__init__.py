"""The files of openai/whisper: names, weights and vocabularies."""
