"""`subfl deploy`: certificates, keys and the processes of a federation on real machines."""

from subfl_flower.deploy.command import main

__all__ = ["main"]
