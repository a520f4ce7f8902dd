"""Folders of single clients: all that a client's machine needs."""
