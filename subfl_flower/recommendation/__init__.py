"""Clients that are users with ratings: their data on a node, models, tasks and clusters."""
