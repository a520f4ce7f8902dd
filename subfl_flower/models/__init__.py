"""Stacked graph neural networks: every parameter has a leading client axis."""
