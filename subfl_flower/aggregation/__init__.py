"""Averages that a few hostile clients cannot take over: bounds on updates, and rules in place of a mean."""
