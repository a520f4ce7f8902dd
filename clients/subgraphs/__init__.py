"""Clients that hold subgraphs: one file a method."""
