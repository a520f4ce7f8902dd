"""Jobs side by side: processes that train one job after the other, each with its share of the cores.

A process that dies takes one job with it: the job failed, and another process trains the next one. The processes end
with the one that started them, however that dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
from joblib import cpu_count  # type: ignore[import-untyped]

from subfl_flower.code_folder import adopted
from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.interrupt import stop_on_interrupt
from subfl_flower.sweeps.display import Display
from subfl_flower.sweeps.job import Outcome, Redo, newest, record_failure, settings_of

if TYPE_CHECKING:
    from subfl_flower.sweeps.engine import Job

_BYTES_EACH = 2 * 2**30
"""Memory that ``auto`` sets aside for a process."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    from subfl_flower.sweeps.worker import main
    main(sys.argv[2], int(sys.argv[3]))
except KeyboardInterrupt:
    sys.exit(130)
"""
"""Program of a process: it imports from where this process does."""


def number_of_processes(asked: int | Literal["auto"], configs: Sequence[Config]) -> int:
    """Number of processes for some jobs; 1 for jobs one after the other in this process.

    ``auto`` is the number of cores that this process may use, of which each job gets one; fewer where there are fewer
    jobs, or where memory is short.

    Raises:
        SubflError: a number is asked for, and the jobs' runtime spreads each of them over the cores.
    """
    spread = [config.runtime.name for config in configs if not config.runtime.one_process]
    if asked == "auto":
        fitting = psutil.virtual_memory().available // _BYTES_EACH
        return 1 if spread else max(1, min(cpu_count(), fitting, len(configs)))
    if asked > 1 and spread:
        raise SubflError(
            f"sweep.jobs={asked}: runtime={spread[0]} spreads each job over the cores already; "
            "use sweep.jobs=1, or runtime=inline"
        )
    return max(1, min(asked, len(configs)))


def train_side_by_side(
    jobs: Sequence[Job], processes: int, redo: Redo, display: Display, known: dict[Path, Outcome]
) -> bool:
    """Train jobs in several processes.

    The first Ctrl-C ends each run after its current round, the second at once.

    Args:
        jobs: the jobs.
        processes: number of processes.
        redo: jobs of an earlier call that are repeated.
        display: shows the progress.
        known: outcomes by folder; those of the jobs are added.

    Returns:
        True where the user stopped.
    """
    crew = _Crew(jobs, redo, display, known, max(1, cpu_count() // processes))
    threads = [threading.Thread(target=crew.work, daemon=True) for _ in range(processes)]
    with stop_on_interrupt() as stop:
        for thread in threads:
            thread.start()
        try:
            _wait(threads, crew, stop)
        except KeyboardInterrupt:
            crew.interrupt()
            _wait(threads, crew, threading.Event())
    return crew.stopped


def _wait(threads: Sequence[threading.Thread], crew: _Crew, stop: threading.Event) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(0.1)
            if stop.is_set() and not crew.stopped:
                crew.interrupt()


class _Crew:
    """The processes of a sweep, each fed by a thread of this process."""

    def __init__(
        self, jobs: Sequence[Job], redo: Redo, display: Display, known: dict[Path, Outcome], threads: int
    ) -> None:
        self._jobs, self._redo, self._display, self._known = deque(jobs), redo, display, known
        self._threads = threads
        self._processes: set[_Process] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def work(self) -> None:
        """Train one job after the other in one process, in a new one after a crash."""
        process: _Process | None = None
        while (job := self._next()) is not None:
            if process is None:
                process = _Process(self._threads, self._display)
                with self._lock:
                    self._processes.add(process)
            if self.stopped:
                break
            self._display.begun(job.directory)
            outcome = self._train(process, job)
            if outcome is None:
                break
            with self._lock:
                self._known[job.directory] = outcome
            self._display.ended(job.directory, outcome)
            if not process.is_alive:
                self._close(process)
                process = None
        if process is not None:
            self._close(process)

    def interrupt(self) -> None:
        """Begin no further job, and interrupt those in training."""
        with self._lock:
            self.stopped = True
            for process in self._processes:
                process.interrupt()

    def _next(self) -> Job | None:
        with self._lock:
            return None if self.stopped or not self._jobs else self._jobs.popleft()

    def _train(self, process: _Process, job: Job) -> Outcome | None:
        """The outcome of a job; None where the user stopped it before it came to an outcome."""
        assert job.config is not None
        reply = process.train(job, self._redo)
        if reply is not None:
            directory = Path(reply["directory"])
            return Outcome(directory, summary=RunDirectory(directory).summary() or {}, **reply["outcome"])
        directory = newest(job.directory)
        summary = RunDirectory(directory).summary() or {}
        if summary.get("status") in ("completed", "interrupted"):
            return Outcome(directory, summary["status"], summary)
        if self.stopped:
            return None
        reason = f"its process {process.ending}"
        record_failure(directory, settings_of(job.config), reason)
        return Outcome(directory, "failed", RunDirectory(directory).summary() or {}, reason)

    def _close(self, process: _Process) -> None:
        process.close()
        with self._lock:
            self._processes.discard(process)


class _Process:
    """A process that trains one job after the other, with a number of threads."""

    def __init__(self, threads: int, display: Display) -> None:
        allowed = {name: str(min(threads, int(os.environ.get(name) or threads))) for name in _THREADS}
        arguments = [json.dumps(sys.path), str(adopted() or ""), str(min(threads, *map(int, allowed.values())))]
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **allowed},
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal reaches this process, which passes it on
        )
        self._listener = threading.Thread(target=self._listen, args=(display,), daemon=True)
        self._listener.start()

    def train(self, job: Job, redo: Redo) -> Mapping[str, Any] | None:
        """The reply to a job; None where the process dies on it."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        assert job.config is not None
        order = {"config": job.config.plain(), "directory": str(job.directory), "redo": redo}
        try:
            self._popen.stdin.write(json.dumps({**order, "environment": dict(job.environment)}) + "\n")
            self._popen.stdin.flush()
            line = self._popen.stdout.readline()
        except OSError:
            line = ""
        reply: Mapping[str, Any] | None = json.loads(line) if line.endswith("\n") else None
        if reply is None:
            self._popen.wait()
            self._listener.join()
        return reply

    @property
    def is_alive(self) -> bool:
        """True while the process takes jobs."""
        return self._popen.poll() is None

    @property
    def ending(self) -> str:
        """The way in which the process died."""
        code = self._popen.wait()
        if code >= 0:
            return f"ended with code {code}"
        kill = " (memory may be short)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{kill}"

    def interrupt(self) -> None:
        """Interrupt the process as Ctrl-C does."""
        if self.is_alive:
            self._popen.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Let the process end, which it does at the end of its input."""
        for stream in (self._popen.stdin, self._popen.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # it died with unread input
                stream.close()
        self._popen.wait()
        self._listener.join()

    def _listen(self, display: Display) -> None:
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            display.say(line.rstrip("\n"))
