"""What a client's graph lacks because other clients hold it, and how it is mended: by sums, by generators, by similar nodes."""
