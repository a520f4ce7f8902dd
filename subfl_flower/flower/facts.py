"""Facts that Flower has no public name for."""

from __future__ import annotations

from flwr.cli.constant import DEFAULT_FLOWER_CONFIG_TOML
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid

DEFAULT_CONFIGURATION = DEFAULT_FLOWER_CONFIG_TOML
"""The content of `config.toml` as Flower would write it at its first start."""


def is_networked(grid: Grid) -> bool:
    """True for the grid of a SuperLink, which reaches nodes on other machines; False in a simulation."""
    return isinstance(grid, HttpGrid)
