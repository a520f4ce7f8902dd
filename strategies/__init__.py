"""Server side of the methods: one strategy a file."""
