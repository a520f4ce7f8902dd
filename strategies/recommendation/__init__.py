"""Strategies for recommenders: one file a method, and the parts that they are made of."""
