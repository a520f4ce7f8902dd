"""`subfl launch`: one federation through `flwr run`, on a SuperLink that lives and dies with the command."""

from subfl_flower.launch.command import main

__all__ = ["main"]
