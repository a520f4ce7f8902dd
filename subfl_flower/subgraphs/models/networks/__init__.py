"""Stacked networks, one file each. Their base, and those that methods are written for, are in the folder above."""
