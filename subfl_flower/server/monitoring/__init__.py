"""State of a deployed run for its operator: a file, an endpoint for Prometheus, and events in the log."""
