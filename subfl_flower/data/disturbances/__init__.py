"""Disturbed data of clients: noise, sparsity and topology skew, to see how robust a method is."""
