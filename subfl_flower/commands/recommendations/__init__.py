"""The best items of trained recommenders."""
