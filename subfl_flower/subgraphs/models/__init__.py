"""Graph neural networks over a leading client axis."""
