"""The `subfl` command: one run or a Hydra multirun, and the commands around runs.

``subfl method=fedpub dataset=cora`` trains; ``subfl -m seed=0,1,2`` sweeps; ``subfl resume=RUN`` continues an
interrupted run; ``subfl report RUN...`` reports on finished runs; ``subfl launch ...`` runs the same app through ``flwr
run`` on a new SuperLink; ``subfl inspect ...`` describes the training data; ``subfl partition``, ``subfl deploy`` and
``subfl predict`` are for real machines.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from subfl_flower.code_folder import adopt
from subfl_flower.commands.parser import exit_code, run_command
from subfl_flower.errors import SubflError

_COMMANDS = {
    "report": "subfl_flower.evaluation.report",
    "analyse": "subfl_flower.analysis.analyse",
    "inspect": "subfl_flower.commands.inspect",
    "launch": "subfl_flower.launch.command",
    "partition": "subfl_flower.commands.partition",
    "predict": "subfl_flower.commands.predict",
    "recommend": "subfl_flower.commands.recommend",
    "deploy": "subfl_flower.deploy.command",
}
"""Modules of the shape of `commands.parser.Command`, imported on use."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `subfl`; exits with 0, 1 (a run failed), 2 (bad input) or 130 (interrupted)."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run `subfl ARGV`; return the exit code."""
    arguments = list(argv)
    name = arguments[0] if arguments and arguments[0] in _COMMANDS else ""
    return exit_code(name, _dispatch, arguments)


def _dispatch(arguments: list[str]) -> int:
    folder = Path.cwd()
    if arguments[:1] == ["--code"]:
        folder, arguments = Path(arguments[1] if len(arguments) > 1 else ""), arguments[2:]
        if not folder.is_dir() or folder == Path():
            raise SubflError(f"--code {folder}: there is no such folder; give one with your modules")
    command = arguments[0] if arguments else ""
    if command != "deploy" or arguments[1:2] == ["submit"]:  # a federation's machines import only installed packages
        adopt(folder)
    if command not in _COMMANDS:
        return int(importlib.import_module("subfl_flower.commands.train").main(arguments))
    module = importlib.import_module(_COMMANDS[command])
    if hasattr(module, "main"):
        return int(module.main(arguments[1:]))
    return run_command(command, module, arguments[1:])
