"""Protection of a client's upload from the parties that carry, add up or match it."""
