"""The processes that fork for messages (`template`): one for any app, and one for each app in use."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.common.constant import APP_DIR, FAB_HASH_TRUNCATION
from flwr.supercore.utils import get_flwr_home

from subfl_flower.flower.log import log
from subfl_flower.flower.warm import template

_PATIENCE_SECONDS = 120.0
"""Time that a process may take to answer; it imports PyTorch before its first answer."""

_SHORT_LIFE_SECONDS = 60.0
_MOST_SHORT_LIVES = 3
_MOST_APPS = 2


class Forker:
    """One process that forks.

    Attributes:
        process: its number.
        broken: True where it does not answer, or is gone.
    """

    def __init__(self, channel: socket.socket, process: int) -> None:
        self.process = process
        self.broken = False
        self._channel = channel

    def fork(self, command: Sequence[str]) -> int | None:
        """The number of a process that runs a command line of `flwr-clientapp`; None where there is none."""
        return self._asked({"command": list(command)})

    def fork_with(self, digest: str, folder: Path) -> Forker | None:
        """A process that has imported an app, too; None where that is not possible, which the log explains."""
        ours, theirs = _channel()
        with theirs:
            process = self._asked({"digest": digest, "folder": str(folder)}, theirs)
        if process is not None:
            forker = Forker(ours, process)
            if forker._answer() is not None:
                return forker
            forker.end()
        ours.close()
        return None

    def end(self) -> None:
        """End it; what it has forked goes on."""
        self._channel.close()
        self.broken = True

    def _asked(self, request: dict[str, Any], *given: socket.socket) -> int | None:
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], [end.fileno() for end in given])
        except OSError:
            self.broken = True
            return None
        return self._answer()

    def _answer(self) -> int | None:
        answer: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            if select.select([self._channel], [], [], _PATIENCE_SECONDS)[0]:
                answer = json.loads(self._channel.recv(template.LONGEST) or b"{}")
        if "process" in answer:
            return int(answer["process"])
        if "error" in answer:
            log(WARNING, "a message is handled by a new program: %s", answer["error"])
        else:
            self.broken = True
            with contextlib.suppress(OSError):  # a fork that comes late must not work for the same task
                os.kill(self.process, signal.SIGKILL)
        return None


class Templates:
    """The processes that fork; a new one takes the place of one that has ended.

    Args:
        may_import: tells of an app, by the SHA-256 of its bundle, if its code may be imported before a message of it is
            looked at; None: of all.

    Attributes:
        given_up: True where they ended several times soon after their start: messages are then left to new programs.
    """

    def __init__(self, may_import: Callable[[str], bool] | None = None) -> None:
        self._may_import = may_import
        self.given_up = False
        self._short_lives = 0
        self._apps: dict[str, Forker | None] = {}
        self._start()

    def fork(self, command: Sequence[str], digest: str | None) -> int | None:
        """The number of a process that runs a command line of `flwr-clientapp`; None where there is none.

        Args:
            command: the program and its arguments.
            digest: SHA-256 of the app that the message is for; None where it is not known.
        """
        if self.given_up:
            return None
        forker = self._app(digest) if digest else self._any_app
        return None if forker is None else forker.fork(command)

    def keep(self) -> None:
        """Start a new process where the one for any app has ended."""
        for digest, forker in tuple(self._apps.items()):
            if forker is not None and forker.broken:
                del self._apps[digest]
        if self.given_up or self._program.poll() is None:
            return
        self._any_app.end()
        self._short_lives = self._short_lives + 1 if time.monotonic() - self._started < _SHORT_LIFE_SECONDS else 0
        self.given_up = self._short_lives >= _MOST_SHORT_LIVES
        after = "messages are handled by new programs" if self.given_up else "it is started again"
        log(WARNING, "the process that forks for messages ended (code %s): %s", self._program.returncode, after)
        if not self.given_up:
            self._start()

    def end(self) -> None:
        """End all; their forks go on."""
        for forker in self._apps.values():
            if forker is not None:
                forker.end()
        self._any_app.end()
        self._program.kill()
        self._program.wait()

    def _app(self, digest: str) -> Forker | None:
        """The process for an app; None where it cannot be imported in advance."""
        if digest not in self._apps:
            folder = _folder_of(digest)
            if folder is None or (self._may_import is not None and not self._may_import(digest)):
                return self._any_app  # its fork looks at the message, and installs the app
            if len(self._apps) == _MOST_APPS and (oldest := self._apps.pop(next(iter(self._apps)))) is not None:
                oldest.end()
            self._apps[digest] = self._any_app.fork_with(digest, folder)
        return self._apps[digest]

    def _start(self) -> None:
        ours, theirs = _channel()
        with theirs:
            command = [sys.executable, "-P", str(Path(template.__file__))]
            self._program = subprocess.Popen(command, stdin=theirs.fileno())
        self._any_app = Forker(ours, self._program.pid)
        self._started = time.monotonic()


def _channel() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel of whole messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _folder_of(digest: str) -> Path | None:
    """The folder to which Flower has installed the app of a hash; None where it has not."""
    found = list((get_flwr_home() / APP_DIR).glob(f"*.{digest[:FAB_HASH_TRUNCATION]}"))
    return found[0] if len(found) == 1 else None
