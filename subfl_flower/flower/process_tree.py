"""The processes of one launch: finding and ending all of them.

Every process of a launch inherits an environment variable with a value that identifies the launch. By it a process is
found even after its parent has died. Ray's workers overwrite their environment block with a process title, so the
descendants of the marked processes count as well. On Linux the launching process also adopts the launch's orphans
while the launch lasts. If the launching process itself is killed, a guard ends the rest.

Run as a script, this module is that guard. It therefore imports nothing of the package.
"""

import contextlib
import ctypes
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import psutil

MARKER = "SUBFL_LAUNCH_ID"

_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_FINISHED = b"finished"


@dataclass
class LaunchProcesses:
    """The processes of the launch `launch_id`.

    `strangers` are the children that the launching process had before: of its other children, those that it
    adopts included, all belong to the launch. `None`, for any other process, leaves children out of account.
    """

    launch_id: str
    strangers: frozenset[psutil.Process] | None = field(default=None)

    def running(self) -> set[psutil.Process]:
        """The processes that run at the moment; a zombie counts as ended."""
        found = self._children()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARKER) == self.launch_id:
                    found.add(process)
        for process in tuple(found):
            with contextlib.suppress(psutil.Error):
                found.update(process.children(recursive=True))
        return _alive(found)

    def end(self, grace: float = 2.0) -> list[int]:
        """Ask every process to end, and kill it after `grace` seconds.

        Flower's simulation waits five seconds for a ServerApp that cannot be stopped, and some of Ray's
        processes do not listen: a longer grace gains nothing.

        Returns:
            The ids of processes that are still there: none, unless the operating system refuses.
        """
        known = self.running()
        asked: set[psutil.Process] = set()
        begin = time.monotonic()
        while remaining := _alive(known):
            elapsed = time.monotonic() - begin
            if elapsed > grace + _KILL_SECONDS:
                break
            for process in remaining if elapsed > grace else remaining - asked:
                with contextlib.suppress(psutil.Error):
                    process.kill() if elapsed > grace else process.terminate()
            asked |= remaining
            time.sleep(_POLL_SECONDS)
            known |= self.running()
        for process in self._children():
            # Collects the exit status of a child, so that it does not stay in the process table.
            with contextlib.suppress(psutil.Error):
                process.wait(timeout=1.0)
        return sorted(process.pid for process in _alive(known))

    def _children(self) -> set[psutil.Process]:
        if self.strangers is None:
            return set()
        return set(psutil.Process().children()) - self.strangers


def _alive(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
    return found


@contextlib.contextmanager
def guarded_launch(launch_id: str, scratch: str) -> Iterator[LaunchProcesses]:
    """Guard a launch: no process of it outlives the block, or this process, however it ends.

    Args:
        launch_id: the value of `MARKER` in the environment of the launch's processes.
        scratch: a folder to remove when this process is killed.
    """
    guard = subprocess.Popen(
        [sys.executable, "-P", __file__, launch_id, scratch],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _adopt_orphans(True)
    processes = LaunchProcesses(launch_id, frozenset(psutil.Process().children()))
    try:
        yield processes
    finally:
        if left := processes.end():
            print(f"these processes could not be ended: {left}", file=sys.stderr)
        _adopt_orphans(False)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            guard.communicate(_FINISHED, timeout=10.0)


def _adopt_orphans(adopt: bool) -> None:
    """Make orphaned descendants children of this process instead of process 1 (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def _guard(launch_id: str, scratch: str) -> None:
    """Wait for the end of the launching process, which holds the other end of standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() != _FINISHED:
        LaunchProcesses(launch_id).end(grace=0.0)
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    _guard(*sys.argv[1:3])
