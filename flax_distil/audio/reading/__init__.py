"""From encoded audio of any kind to samples: containers, streams, channels, and what is wrong with them."""
