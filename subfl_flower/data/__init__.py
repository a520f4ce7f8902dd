"""Clients' data: graphs, ratings, partitions, splits."""
