"""Parts that networks on graphs and recommenders have in common."""
