"""All code that depends on Flower's inner workings, and the grid that runs a federation in one process."""
