"""Runs on one machine or one Ray cluster, started from Python: the runtimes ``inline`` and ``ray`` of `subfl`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from threadpoolctl import threadpool_limits

from subfl_flower.config import Config, Deploy, Inline, Ray
from subfl_flower.errors import SubflError
from subfl_flower.flower.inline_grid import InlineGrid, task_identity_given_back
from subfl_flower.flower.programs import ray_settings
from subfl_flower.flower.prompt_delivery import deliver_promptly
from subfl_flower.node.cores import threads_given_back
from subfl_flower.node.node import compute_device
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.registry import needs_matcher
from subfl_flower.server.federation import resumable, run_federation
from subfl_flower.server.interrupt import stop_on_interrupt


def simulate(
    config: Config,
    directory: Path,
    resume: bool = False,
    said: set[str] | None = None,
    lines: bool | None = False,
) -> dict[str, Any]:
    """Train in the runtime that the configuration names, or resume the run in `directory`; return the run's summary.

    Args:
        config: configuration of the run.
        directory: the run directory.
        resume: resume the run in it.
        said: remarks on data that earlier jobs of a sweep have printed; this run's are added.
        lines: print progress lines where there is no terminal; None shows no progress.
    """
    if isinstance(config.runtime, Deploy):
        raise SubflError("runtime=deploy: SuperNodes are reached through their SuperLink, by subfl deploy submit")
    if resume:
        resumable(config, directory)  # checked before Ray is started in vain
    with stop_on_interrupt() as stop:

        def run(grid: Grid) -> dict[str, Any]:
            return run_federation(grid, config, directory, stop, lines=lines, resume=resume, said=said)

        if isinstance(config.runtime, Inline):
            return _simulate_inline(config.runtime, needs_matcher(config), run)
        return _simulate_with_ray(config.runtime, needs_matcher(config), run)


def _simulate_inline(runtime: Inline, matcher: bool, run: Callable[[Grid], dict[str, Any]]) -> dict[str, Any]:
    from subfl_flower.client_app import app

    compute_device(runtime.device)
    num_nodes = 1 if runtime.nodes == "auto" else runtime.nodes
    try:
        with threads_given_back(), InlineGrid(app, num_nodes + matcher).active() as grid:
            return run(grid)
    finally:
        forget_nodes()


def _simulate_with_ray(runtime: Ray, matcher: bool, run: Callable[[Grid], dict[str, Any]]) -> dict[str, Any]:
    from flwr.simulation import run_simulation  # loads a web framework and a database, which takes a second

    from subfl_flower.client_app import app as client_app

    summaries: list[dict[str, Any]] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        deliver_promptly(grid)
        summaries.append(run(grid))

    for name, value in ray_settings(runtime.node_timeout).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    flower_log = logging.getLogger("flwr")
    level = flower_log.level
    flower_log.setLevel(logging.CRITICAL)  # the run itself reports a client's errors
    try:
        # BLAS threads of this process keep spinning after a matrix product, on the cores that the actors need.
        with threadpool_limits(1), warnings.catch_warnings(), task_identity_given_back():
            warnings.simplefilter("ignore")
            run_simulation(
                server_app=server_app,
                client_app=client_app,
                num_supernodes=number_of_nodes(runtime) + matcher,
                backend_config=_backend(runtime),
            )
    except SubflError:
        raise
    except (RuntimeError, ValueError, ConnectionError) as error:
        raise SubflError(f"runtime=ray: the simulation ended with an error: {error}") from error
    finally:
        flower_log.setLevel(level)
    if not summaries:
        raise SubflError("runtime=ray: the simulation ended before the server did; see the log above")
    return summaries[0]


def number_of_nodes(runtime: Ray) -> int:
    """Virtual nodes of a simulation; ``auto`` is one for every actor that fits this machine.

    Few nodes with many clients each need few messages.
    """
    if runtime.nodes != "auto":
        return runtime.nodes
    by_cpu = int((runtime.total_cpus or os.cpu_count() or 1) / runtime.num_cpus)
    if runtime.num_gpus > 0:
        by_cpu = min(by_cpu, int(torch.cuda.device_count() / runtime.num_gpus))
    return max(1, by_cpu)


def _backend(runtime: Ray) -> dict[str, Any]:
    init: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if runtime.address is not None:
        init["address"] = runtime.address
    else:
        init["num_cpus"] = runtime.total_cpus or os.cpu_count()
    return {
        "init_args": init,
        # An actor whose process died is started again and its message is sent once more; else every later message
        # would fail, too.
        "client_resources": {
            "num_cpus": runtime.num_cpus,
            "num_gpus": runtime.num_gpus,
            "max_restarts": -1,
            "max_task_retries": 1,
        },
    }
