"""Commands of `subfl` around training: a client's own folder before it, predictions after it."""
