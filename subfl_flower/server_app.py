"""Flower's server side: composes the configuration from the run's overrides and runs the federation."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from subfl_flower.code_folder import adopt
from subfl_flower.composition import composed_job
from subfl_flower.errors import SubflError
from subfl_flower.flower.facts import is_networked, node_keys
from subfl_flower.flower.inflation import bound_inflation
from subfl_flower.flower.log import event, in_json, use_asked_format
from subfl_flower.flower.signing_grid import SigningGrid
from subfl_flower.server.federation import run_federation
from subfl_flower.server.interrupt import stop_on_interrupt
from subfl_flower.server.run_schema import stated_schema
from subfl_flower.storage.package_files import sent_choices
from subfl_flower.sweeps.job import make_run_folder, sole_user
from subfl_flower.trust.members import MEMBERS, Admission
from subfl_flower.trust.operator_key import OPERATOR_KEY, read_operator_key
from subfl_flower.trust.orders import sign

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run under ``flwr run . --run-config 'overrides="method=fedpub dataset=cora"'``.

    Over the network the runtime is ``deploy``, in Flower's simulation engine it is ``ray``.
    """
    use_asked_format()
    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    networked = is_networked(grid)
    code = str(context.run_config.get("code", ""))
    if own := Path(code) if code and not networked else sent_choices():
        adopt(own)
    job = composed_job(overrides, "deploy" if networked else "ray")
    if job.config.runtime.deployed != networked or job.config.runtime.one_process:
        raise SubflError(
            f"runtime={job.config.runtime.name}: this SuperLink's runtime is "
            f"{'deploy' if networked else 'ray'}; leave it out"
        )
    admission = None
    if networked:
        stated_schema(job.config)
        bound_inflation(grid)
        grid, admission = _signing(grid), _admission(grid)
    directory = job.directory.absolute()
    # Told at the start, too: a user who wants to resume a killed run needs the directory.
    _tell(directory)
    make_run_folder(directory)
    with sole_user(directory), stop_on_interrupt() as stop:
        run_federation(grid, job.config, directory, stop, lines=True, resume=job.resume, admission=admission)
    _tell(directory)


def _tell(directory: Path) -> None:
    """Tell where the run is kept, in the log's form; `subfl deploy submit` reads it."""
    said = f"run directory: {directory}"
    event("run directory", said)
    if not in_json():
        print(said, flush=True)


def _signing(grid: Grid) -> Grid:
    """Have a grid sign all messages where the SuperLink was started with the operator's key.

    Raises:
        SubflError: the key cannot be read.
    """
    path = os.environ.get(OPERATOR_KEY)
    if path is None:
        return grid
    key = read_operator_key(Path(path))
    return SigningGrid(grid, lambda message, number: sign(message, key, number))


def _admission(grid: Grid) -> Admission | None:
    """Decision on the nodes of a grid, where the SuperLink was started with a file of members.

    Raises:
        SubflError: the file cannot be read.
    """
    path = os.environ.get(MEMBERS)
    return None if path is None else Admission(Path(path), lambda: node_keys(grid))
