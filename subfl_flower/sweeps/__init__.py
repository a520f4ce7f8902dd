"""Many runs at once: jobs named by their configuration, reuse of finished ones, side-by-side execution, one table."""
