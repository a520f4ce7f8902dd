"""Trust between a federation's parties: signed orders, members known by their keys, a site's policy."""
