"""Masks that a node makes for its clients: each once."""
