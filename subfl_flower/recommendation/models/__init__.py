"""Recommenders over a leading client axis."""
