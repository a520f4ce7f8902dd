"""`subfl launch`: one federation through `flwr run`, on a SuperLink that ends with the command."""

from subfl_flower.launch.command import main

__all__ = ["main"]
