"""What the server does: one strategy a file."""
