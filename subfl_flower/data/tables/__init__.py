"""Strict reading of users' tables."""
