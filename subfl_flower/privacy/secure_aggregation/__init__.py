"""Secure sums that survive clients who drop out (Bonawitz et al., CCS 2017), without a federation around them."""
