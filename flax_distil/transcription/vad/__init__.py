"""Long recordings in windows of packed speech, without overlap."""
