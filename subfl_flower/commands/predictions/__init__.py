"""Predictions of trained models for the nodes of a graph, and for pairs of nodes."""
