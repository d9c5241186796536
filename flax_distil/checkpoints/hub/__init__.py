"""The Hugging Face Hub: models downloaded from it, results uploaded to it."""
