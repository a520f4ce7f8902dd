"""Rating data sets: one file a source."""
