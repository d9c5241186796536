"""Long recordings, window after window."""
