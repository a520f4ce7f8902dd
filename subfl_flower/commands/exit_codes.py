"""Exit codes of every `subfl` command."""

OK = 0
FAILED = 1
"""A run, or a job of a sweep, failed."""
BAD_INPUT = 2
INTERRUPTED = 130
"""Stopped by Ctrl-C or by a signal, as shells count it."""
