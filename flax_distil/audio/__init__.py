"""From files to samples on the host, from samples to log-mel features on the device."""
