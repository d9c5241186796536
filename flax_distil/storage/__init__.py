"""Files on this machine and at addresses: read, written whole, requests repeated; folders of results."""
