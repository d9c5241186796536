"""From windows of audio to transcripts of recordings of any length."""
