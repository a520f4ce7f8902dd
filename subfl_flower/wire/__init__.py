"""Arrays, batches, contracts and replies: everything that travels between the server and its nodes."""
