"""The nodes of a federation: the client's base, the node's data and state, and the messages that it answers."""
