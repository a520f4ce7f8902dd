"""What keeps a client's data from those who carry, add up or match what it sends."""
