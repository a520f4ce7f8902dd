"""Commands for a federation that runs: its state, and files that are no longer needed."""
