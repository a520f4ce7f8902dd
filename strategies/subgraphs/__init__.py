"""Strategies for subgraphs: one file a method."""
