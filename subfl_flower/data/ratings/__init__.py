"""Ratings that users gave to items: one file a source, its settings and its loader."""
