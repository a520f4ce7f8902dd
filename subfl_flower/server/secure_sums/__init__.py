"""Rounds whose uploads the server sees as a sum only."""
