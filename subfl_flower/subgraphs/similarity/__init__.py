"""Similarity of clients by their models' embeddings of a random graph, and by their graphs' structure."""
