"""The `subfl` command: one run or a Hydra multirun, and the commands around runs.

``subfl method=fedpub dataset=cora`` trains; ``subfl -m seed=0,1,2`` sweeps; ``subfl resume=RUN`` continues an
interrupted run; ``subfl report RUN...`` reports on finished runs; ``subfl launch ...`` runs the same app through ``flwr
run`` on a new SuperLink; ``subfl inspect ...`` describes the training data; ``subfl partition``, ``subfl deploy`` and
``subfl predict`` are for real machines.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from subfl_flower.code_folder import adopt
from subfl_flower.commands.exit_codes import BAD_INPUT

_COMMANDS = {
    "report": "subfl_flower.evaluation.report",
    "analyse": "subfl_flower.analysis.analyse",
    "inspect": "subfl_flower.commands.inspect",
    "launch": "subfl_flower.launch",
    "partition": "subfl_flower.commands.partition",
    "predict": "subfl_flower.commands.predict",
    "recommend": "subfl_flower.commands.recommend",
    "deploy": "subfl_flower.deploy",
}
"""Modules whose `main` takes a command's arguments and returns its exit code; imported on use."""

_REFUSED = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS}
"""The system's reasons to refuse a path, which no program can know before it uses the path."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `subfl`; exits with 0, 1 (a run failed), 2 (bad input) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(arguments)
    except OSError as error:
        if error.errno not in _REFUSED or error.filename is None:
            raise
        command = " ".join(["subfl", *(word for word in arguments[:1] if word in _COMMANDS)])
        print(f"{command}: {os.fsdecode(error.filename)} cannot be used: {error.strerror}", file=sys.stderr)
        status = BAD_INPUT
    sys.exit(status)


def _dispatch(arguments: list[str]) -> int:
    folder = Path.cwd()
    if arguments[:1] == ["--code"]:
        folder, arguments = Path(arguments[1] if len(arguments) > 1 else ""), arguments[2:]
        if not folder.is_dir() or folder == Path():
            print(f"subfl: --code {folder}: there is no such folder; give one with your modules", file=sys.stderr)
            return BAD_INPUT
    command = arguments[0] if arguments else ""
    if command != "deploy" or arguments[1:2] == ["submit"]:  # a federation's machines import only installed packages
        adopt(folder)
    module = _COMMANDS.get(command, "subfl_flower.commands.train")
    run: Callable[[list[str]], int] = importlib.import_module(module).main
    return run(arguments[1:] if command in _COMMANDS else arguments)
