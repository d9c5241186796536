"""Decode audio files of any kind to samples: containers, streams, channels, and damage."""
