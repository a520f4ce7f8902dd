"""The `subfl` command: training, and the commands around it.

``subfl method=fedpub dataset=cora`` trains, ``subfl -m seed=0,1,2`` sweeps, and ``subfl resume=RUN`` continues an
interrupted run. Every other command is named by the first word; see `commands.overview`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from subfl_flower.code_folder import adopt
from subfl_flower.commands.overview import COMMANDS, overview, unknown_command
from subfl_flower.commands.parser import exit_code, run_command
from subfl_flower.errors import SubflError


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `subfl`; exits with 0, 1 (a run failed), 2 (bad input) or 130 (interrupted)."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run `subfl ARGV`; return the exit code."""
    arguments = list(argv)
    name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    return exit_code(name, _dispatch, arguments)


def _dispatch(arguments: list[str]) -> int:
    folder = Path.cwd()
    if arguments[:1] == ["--code"]:
        if len(arguments) < 2 or not arguments[1]:
            raise SubflError("--code: a folder is required, as in --code DIR method=mine")
        folder, arguments = Path(arguments[1]), arguments[2:]
        if not folder.is_dir():
            raise SubflError(f"--code {folder}: there is no such folder; give one with your modules")
    command = arguments[0] if arguments else ""
    if command != "deploy" or arguments[1:2] == ["submit"]:  # a federation's machines import only installed packages
        adopt(folder)
    if command in ("--help", "-h", "help"):
        return _print(overview())
    if command in ("--version", "version"):
        return _print(_version())
    if command in ("--shell-completion", "-sc"):
        return run_command("completion", importlib.import_module(COMMANDS["completion"].module), ["bash"])
    if command in COMMANDS:
        return run_command(command, importlib.import_module(COMMANDS[command].module), arguments[1:])
    if problem := unknown_command(command):
        raise SubflError(problem)

    from subfl_flower.catalogue.own_choices import offer_own_choices
    from subfl_flower.commands import train

    offer_own_choices()
    return train.main(arguments)


def _print(text: str) -> int:
    print(text)
    return 0


def _version() -> str:
    from subfl_flower import __version__

    return f"subfl {__version__}"
