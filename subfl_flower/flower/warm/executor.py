"""Flower's process that runs a SuperNode's tasks, with a fork for each message instead of a new program.

All that is Flower's stays: the loop that acquires tasks, their tokens, and the command line of a ClientApp's process.
Where that line would be started as a program, `templates` fork for it. Whatever cannot be forked is started as
Flower does it.
"""

from __future__ import annotations

import importlib
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult, SubprocessExecutor, subprocess_executor
from flwr.supercore.utils import disable_process_dumping

from subfl_flower.flower.log import use_asked_format
from subfl_flower.flower.warm.templates import Templates
from subfl_flower.trust.gate import SiteSettings

_CLIENT_APP = "flwr-clientapp"
_GATED = "subfl_flower.flower.warm.gated_program"
_LOOP = "flwr.supercore.superexec.run_superexec"
_POLL_VARIABLE, _POLL_SECONDS = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.01"

_IDLE_SECONDS = 0.5
"""Time between two looks for a task where the SuperNode has told of none."""


class _Programs:
    """A stand-in for the module `subprocess` in Flower's executor, which forks for a ClientApp.

    Args:
        templates: processes that fork; None starts a program for each message.
        gated: start a program with the site's gate in it.
    """

    DEVNULL = subprocess.DEVNULL

    def __init__(self, templates: Templates | None, gated: bool) -> None:
        self._templates, self._gated = templates, gated
        self.digest: str | None = None

    def Popen(self, command: Sequence[str], **options: Any) -> None:
        if command[0] == _CLIENT_APP:
            if self._templates and not options and self._templates.fork(command, self.digest) is not None:
                return
            if self._gated:
                command = [sys.executable, "-P", "-m", _GATED, *command[1:]]
        subprocess.Popen(command, **options)


class WarmExecutor(SubprocessExecutor):
    """Flower's executor of programs, whose loop waits until the SuperNode tells of a message."""

    def __init__(self, news: int) -> None:
        """Have Flower's executor fork.

        Args:
            news: a descriptor with a byte for each event of the SuperNode, closed when it ends.
        """
        self._news = news
        self._supernode = os.getppid()
        site = SiteSettings.of(os.environ)
        allowed = None if site is None else site.code.has_let_in
        self._templates = Templates(allowed) if site is None or site.warm else None
        self._programs = _Programs(self._templates, gated=site is not None)
        flowers: Any = subprocess_executor
        flowers.subprocess = self._programs

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process of a task; it ends with the SuperNode, and outlives this process."""
        self._programs.digest = spec.fab_hash
        return super().launch(replace(spec, parent_pid=self._supernode))

    def reconcile(self) -> None:
        """Wait for news, for a moment at most.

        Raises:
            SystemExit: the SuperNode has ended.
        """
        if self._templates:
            self._templates.keep()
        if select.select([self._news], [], [], _IDLE_SECONDS)[0] and not os.read(self._news, 4096):
            sys.exit()

    def close(self) -> None:
        """End the processes that fork."""
        if self._templates:
            self._templates.end()


def main(address: str) -> None:
    """Run the tasks of the SuperNode that started this process, and holds the other end of its standard input.

    Args:
        address: of the SuperNode's Runtime API, HOST:PORT.
    """
    use_asked_format()
    disable_process_dumping(strict=False)
    os.environ[_POLL_VARIABLE] = _POLL_SECONDS
    loop: Any = importlib.import_module(_LOOP)
    news = os.dup(0)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    loop.get_executor = lambda *_, **__: WarmExecutor(news)
    loop.run_superexec(runtime_api_address=address, insecure=True, parent_pid=os.getppid())


if __name__ == "__main__":
    main(sys.argv[1])
