"""What a finished run is turned into: tables, plots and reports."""
