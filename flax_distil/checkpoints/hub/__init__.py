"""The Hugging Face Hub: download models and upload results."""
