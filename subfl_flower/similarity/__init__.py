"""How alike two clients are."""
