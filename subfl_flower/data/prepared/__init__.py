"""Data that are prepared once and kept on disk."""
