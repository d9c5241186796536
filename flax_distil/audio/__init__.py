"""Audio files become samples on the host; samples become log-mel features on the device."""
