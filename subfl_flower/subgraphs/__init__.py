"""Clients that hold subgraphs: their data on a node, models, tasks, similarity and mended graphs."""
