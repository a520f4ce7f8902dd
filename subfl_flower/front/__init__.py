"""The Python interface: runs, sweeps and their results, for programs and notebooks."""
