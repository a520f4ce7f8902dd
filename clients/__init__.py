"""What clients do: one ``NumPyClient`` family a file."""
