"""Parts that graph networks and recommenders share."""
