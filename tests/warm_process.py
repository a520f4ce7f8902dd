"""Processes of `subfl`, forked from one that has imported everything.

A fork takes milliseconds, and the imports take seconds.

Each is a separate process and session, with arguments, working directory, environment and exit code as if started
by a shell. A test of the imports themselves starts the program instead.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

_NUMBER = struct.Struct("i")
_LONGEST = 2**17
"""Bytes of a request: arguments and environment."""


class WarmProcess:
    """A `subfl` at work, to be used as a `subprocess.Popen` whose output is text.

    Attributes:
        pid: of the process, which is also its session's.
        returncode: the exit code, or the negative number of a signal; None until it is known to have ended.
    """

    def __init__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        self._output = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 (read when the process has ended)
        self._status, status = os.pipe()
        request = json.dumps({"argv": list(argv), "cwd": str(cwd), "env": dict(env)}).encode()
        socket.send_fds(_server(), [request], [*(file.fileno() for file in self._output), status])
        os.close(status)
        self.pid = self._number()

    def _number(self) -> int:
        number: int = _NUMBER.unpack(os.read(self._status, _NUMBER.size))[0]
        return number

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = self._number()
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it wrote to standard output and standard error until its end."""
        self.wait(timeout)
        for file in self._output:
            file.seek(0)
        output, errors = (file.read().decode(errors="replace") for file in self._output)
        return output, errors


@cache
def _server() -> socket.socket:
    """The way to the process that all others are forked from; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LONGEST)
    subprocess.Popen([sys.executable, __file__], stdin=theirs, start_new_session=True)
    theirs.close()
    return ours


def _serve() -> None:
    """Import everything and fork for each request; return in the child that a request is for."""
    started_with = {str(Path(__file__).parent), *_entries(os.environ)}
    rest = [entry for entry in sys.path if entry not in started_with]
    import subfl_flower

    for module in pkgutil.walk_packages(subfl_flower.__path__, "subfl_flower."):
        with contextlib.suppress(ImportError):  # one that needs a package which is not installed
            importlib.import_module(module.name)
    for name in ("sklearn.cluster", "sklearn.datasets", "torch_geometric.data"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # collections need not look at, and so copy, what all share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    requests = socket.socket(fileno=os.dup(0))
    while True:
        request, (*output, status), _, _ = socket.recv_fds(requests, _LONGEST, 3)
        if os.fork() == 0:
            requests.close()
            if _become_watched(status):
                _take_over(json.loads(request), output, rest)
                return
        for descriptor in (*output, status):
            os.close(descriptor)


def _become_watched(status: int) -> bool:
    """Fork; report the child's number and exit code, and end with it. Return True in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (pid := os.fork()) == 0:
        os.close(status)
        return True
    os.write(status, _NUMBER.pack(pid))
    os.write(status, _NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    os._exit(0)


def _take_over(request: dict[str, object], output: Sequence[int], rest: Sequence[str]) -> None:
    """Give this process the session, streams, folder, environment and search path of a started program."""
    os.setsid()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor, stream in zip(output, (1, 2), strict=True):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[arg-type]
    sys.argv = list(request["argv"])  # type: ignore[call-overload]
    sys.path[:] = [str(Path(sys.argv[0]).parent), *_entries(os.environ), *rest]


def _entries(environment: Mapping[str, str]) -> list[str]:
    """Folders of `PYTHONPATH`."""
    return [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _run() -> NoReturn:
    """Do what the program does, and end as Python does, but for the seconds that it takes to forget all modules."""
    from subfl_flower.cli import main

    code: object = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    try:
        _serve()
    except ValueError:  # no descriptors: the other end is closed
        sys.exit()
    _run()
