"""Flower's log, into which a run's server writes."""

from flwr.supercore import log

__all__ = ["log"]
