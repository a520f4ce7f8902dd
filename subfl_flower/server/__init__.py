"""The server of a federation: its rounds, its strategy's base, its members and its checkpoints."""
