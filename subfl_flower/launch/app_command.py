"""The command line of `subfl app`."""

from __future__ import annotations

import argparse
from pathlib import Path

from subfl_flower.code_folder import adopted
from subfl_flower.commands import exit_codes
from subfl_flower.errors import SubflError
from subfl_flower.flower.app_folder import stage_app

SUMMARY = "Write the app of this package into a new folder, for Flower's own `flwr run`."
EXAMPLE = """\
subfl app fedgraph
flwr run fedgraph local --run-config 'overrides="method=fedpub dataset=digits"'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder."""
    parser.add_argument("out", type=Path, metavar="OUT", help="the new folder; your conf/ is copied into it")


def run(options: argparse.Namespace) -> int:
    """Write the folder.

    Raises:
        SubflError: there is something of this name already, or the folder cannot be written.
    """
    out: Path = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SubflError(f"{out} is there already: name a folder that is new or empty")
    try:
        stage_app(None, out, own=adopted())
    except OSError as error:
        raise SubflError(f"{out}: {error.strerror}; it must be in a folder that can be written") from error
    print(f"{out}: the app; flwr run {out} CONNECTION runs it")
    return exit_codes.OK
