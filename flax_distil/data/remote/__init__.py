"""Bytes behind addresses, requested again when a request fails."""
