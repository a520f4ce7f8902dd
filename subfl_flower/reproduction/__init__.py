"""Tables and figures of papers by one command: runs, a small JSON for each, and a page made of these."""
