"""Tasks on ratings."""
