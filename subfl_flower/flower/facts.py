"""Facts that Flower has no public name for."""

from __future__ import annotations

from flwr.cli.constant import DEFAULT_FLOWER_CONFIG_TOML
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid

DEFAULT_CONFIGURATION = DEFAULT_FLOWER_CONFIG_TOML
"""The content of `config.toml` as Flower would write it at its first start."""


def node_keys(grid: Grid) -> dict[int, bytes]:
    """The public key by which the SuperLink has authenticated each connected node (PEM), by the node's number."""
    assert isinstance(grid, HttpGrid)
    return {node.node_id: node.public_key for node in grid.get_nodes()}


def is_networked(grid: Grid) -> bool:
    """True for the grid of a SuperLink, which reaches nodes on other machines; False in a simulation."""
    return isinstance(grid, HttpGrid)
