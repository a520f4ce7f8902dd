"""`subfl deploy status`."""

from __future__ import annotations

import argparse
from pathlib import Path

from subfl_flower.commands import exit_codes
from subfl_flower.commands.parser import Subcommand


def _status(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.operations.status import newest_run, show_status

    show_status(arguments.run or newest_run(Path("outputs")), arguments.watch, arguments.json)
    return exit_codes.OK


def _status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a run's folder; default: the newest here")
    parser.add_argument("--watch", action="store_true", help="look every two seconds until the run ends")
    parser.add_argument("--json", action="store_true", help="one JSON object a look")


OPERATIONS = {
    "status": Subcommand(
        "Show the state of a run on the server's machine.",
        "subfl deploy status outputs/2026-01-01/12-00-00 --watch",
        _status_options,
        _status,
    ),
}
