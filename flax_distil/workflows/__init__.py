"""Rooms composed into jobs: pseudo-label, initialise, distil, evaluate, transcribe, export."""
