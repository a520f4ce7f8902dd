"""A SuperNode that handles messages by forks of a process in which PyTorch and the app are imported."""
