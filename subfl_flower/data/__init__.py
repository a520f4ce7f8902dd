"""Everything that makes a client's data: graphs, partitions, splits."""
