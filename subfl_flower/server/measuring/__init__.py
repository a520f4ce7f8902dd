"""Measurements of a simulation that no party of a deployment could make."""
