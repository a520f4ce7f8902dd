"""Client side of the methods: one ``NumPyClient`` family a file."""
