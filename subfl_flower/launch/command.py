"""`subfl launch`: one federation through `flwr run`, on a SuperLink that ends with the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from subfl_flower.code_folder import adopt, adopted
from subfl_flower.commands import exit_codes
from subfl_flower.commands.parser import run_command
from subfl_flower.errors import RunFailure
from subfl_flower.flower.app_folder import find_app
from subfl_flower.flower.submission import COMPLETED, INTERRUPTED
from subfl_flower.launch.federation import run_federation
from subfl_flower.launch.request import Request

SUMMARY = "Run the app with `flwr run` on a new SuperLink that ends with the command."
EXAMPLE = "subfl launch method=fedpub dataset=digits federation.rounds=50 --supernodes 10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the overrides, and the options of the federation."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    parser.add_argument("--supernodes", type=_number(int, 1), default=10, help="simulated nodes (10)")
    parser.add_argument("--cpus", type=_number(int, 1), default=1, help="CPUs a node (1)")
    parser.add_argument("--gpus", type=_number(float, 0), default=0.0, help="GPUs a node, may be a fraction (0)")
    parser.add_argument("--home", type=Path, help="folder for what Flower writes (.flwr in the current folder)")
    parser.add_argument("--app", type=Path, help="folder with another app's pyproject.toml")


def run(options: argparse.Namespace) -> int:
    """Run the federation, and print the result table of a run that completed.

    Returns:
        0 when the run completed, 130 when a signal stopped it.

    Raises:
        SubflError: it cannot be started as asked.
        RunFailure: it did not complete.
    """
    outcome = run_federation(_request(options))
    if outcome.status == INTERRUPTED:
        print("subfl launch: the run was stopped", file=sys.stderr)
        return exit_codes.INTERRUPTED
    if outcome.status != COMPLETED:
        raise RunFailure(outcome.failure())
    if outcome.run_directory is None:
        raise RunFailure("the run completed, but its log names no run directory, so there is no table")

    from subfl_flower.evaluation import report

    return run_command("report", report, [str(outcome.run_directory)])


def _request(options: argparse.Namespace) -> Request:
    """The request that the options describe; overrides of this app are checked before anything starts."""
    from subfl_flower.composition import composed_job

    app = find_app(options.app)
    patience = Request.patience
    if app is None:
        if adopted() is None:
            adopt(Path.cwd())
        patience = composed_job(options.overrides, "ray").config.runtime.node_timeout
    return Request(
        app=app,
        folder=Path.cwd(),
        home=(options.home or Path(".flwr")).resolve(),
        overrides=tuple(options.overrides),
        supernodes=options.supernodes,
        cpus=options.cpus,
        gpus=options.gpus,
        code=adopted() if app is None else None,
        patience=patience,
    )


def _number(convert: Callable[[str], Any], smallest: int) -> Callable[[str], Any]:
    """A parser of numbers that are at least `smallest`."""

    def number(text: str) -> Any:
        value = convert(text)
        if not value >= smallest:
            raise argparse.ArgumentTypeError(f"{text} is not {smallest} or more")
        return value

    number.__name__ = convert.__name__
    return number
