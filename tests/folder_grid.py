"""Deployed nodes with their folders, all in this process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from run_outcomes import Outcome

from subfl_flower.client_app import app
from subfl_flower.composition import composed_config
from subfl_flower.data.federation_schema import FEDERATION_FILE
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.server.federation import run_federation

SMALL = ("dataset=digits", "model.hidden=8", "runtime.node_timeout=1")


class FolderGrid(InlineGrid):
    """A node for every list of clients' folders; the run's schema lies where the first of them was made."""

    def __init__(self, *nodes: Sequence[Path]) -> None:
        super().__init__(app, len(nodes))
        self.schema = nodes[0][0].parent / FEDERATION_FILE
        for context, folders in zip(self._contexts.values(), nodes, strict=True):
            context.node_config = {"client": ",".join(map(str, folders))}


def deployed(grid: FolderGrid, directory: Path, *overrides: str) -> Outcome:
    config, _ = composed_config(["runtime=deploy", *SMALL, f"schema={grid.schema}", *overrides])
    try:
        with grid.active():
            run_federation(grid, config, directory, threading.Event())
    finally:
        forget_nodes()
    return Outcome(directory)
