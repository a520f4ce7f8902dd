"""What a client's graph lacks because others hold it, and how it is mended: sums, generated nodes, similar nodes."""
