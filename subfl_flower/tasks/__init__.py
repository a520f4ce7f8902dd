"""Tasks: their base, their metrics, and the choice among them."""
