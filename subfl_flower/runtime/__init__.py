"""Messages, roster, state and run directory: what carries a federation."""
