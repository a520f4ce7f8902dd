"""Tables of ratings: read, cleaned, numbered and split."""
