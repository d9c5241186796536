"""What is transcribed: files, addresses, arrays and their channels, loaded ahead."""
