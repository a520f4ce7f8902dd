"""Clients that are users with ratings: one file a method, and the parts that they are made of."""
