"""Federated learning on graphs that may not be shared, built on Flower."""

__version__ = "0.1.0"
