"""Flower's server side: composes the configuration from the run's overrides and runs the federation."""

from __future__ import annotations

import shlex

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from subfl_flower.composition import composed_config
from subfl_flower.config import Inline
from subfl_flower.errors import SubflError
from subfl_flower.runtime.federation import run_federation, stop_on_interrupt

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run under ``flwr run . --run-config 'overrides="method=fedpub dataset=cora"'``."""
    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    config, directory = composed_config(["runtime=ray", *overrides])
    if isinstance(config.runtime, Inline):
        raise SubflError("runtime=inline: under `flwr run` Flower chooses the runtime; leave it out")
    if hasattr(grid, "pull_interval"):
        grid.pull_interval = 0.01
    with stop_on_interrupt() as stop:
        run_federation(grid, config, directory.absolute(), stop, lines=True)
    print(f"run directory: {directory.absolute()}", flush=True)
