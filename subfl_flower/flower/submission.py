"""One run of a staged app on a SuperLink: submission, output until its end or a signal, and its result."""

import contextlib
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.flower.app_folder import stage_app
from subfl_flower.flower.programs import UNKNOWN, Flower

COMPLETED = "finished:completed"
INTERRUPTED = "interrupted"
NOT_STARTED = "not started"

_POLL_SECONDS = 0.05
_STATUS_SECONDS = 2.0
_SUBMIT_SECONDS = 10.0
_STOP_SECONDS = 20.0
_RUN_ID = re.compile(r"Successfully started run (\d+)")
_RUN_DIRECTORY = re.compile(r"\brun directory: (.*\S)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    `status` is Flower's word, such as `finished:completed`, or `interrupted` after a signal, or `not started` when
    `flwr run` was refused. `reason` is Flower's detail, `run_directory` the one that the ServerApp named, `log` the
    SuperLink's log where it was kept.
    """

    status: str
    reason: str = ""
    run_directory: Path | None = None
    log: Path | None = None

    def failure(self) -> str:
        """One sentence on a run that did not complete, and on where to find details."""
        reason = f": {self.reason}" if self.reason not in ("", "N/A") else ""
        log = f" (its whole log: {self.log})" if self.log else ""
        if self.status == NOT_STARTED:
            return f"the run did not start{reason}{log}"
        return f"the run did not complete, it is {self.status}{reason}{log}"


def overrides_toml(overrides: Sequence[str], code: Path | None = None) -> str:
    """A TOML document whose key `overrides` holds the overrides as one line for `shlex.split`.

    With `code`, the user's folder, a key of this name holds its path.

    An override that `shlex.split` does not change is written as it is; another one is quoted. The document goes
    to `flwr run --run-config FILE.toml`: the key=value form of that option has no escaped quotes.

    Raises:
        SubflError: when an override holds a control character.
    """
    for override in overrides:
        if not override.isprintable():
            raise SubflError(f"the override {override!r} holds a control character; it must be one line of text")
    line = " ".join(o if _is_one_word(o) else shlex.quote(o) for o in overrides)
    text = f"overrides = {json.dumps(line, ensure_ascii=False)}\n"
    return text if code is None else f"{text}code = {json.dumps(str(code), ensure_ascii=False)}\n"


def _is_one_word(override: str) -> bool:
    try:
        return shlex.split(override) == [override]
    except ValueError:
        return False


def stage(app: Path | None, run_config: str, folder: Path, own: Path | None = None) -> None:
    """Write the files that `submit` sends into `folder`: the app (by `stage_app`) and its run configuration (TOML)."""
    stage_app(app, folder / "app", own)
    (folder / "run-config.toml").write_text(run_config, encoding="utf-8")


def submit(flower: Flower, folder: Path, interrupted: Callable[[], bool], *options: str) -> Outcome:
    """Run the app staged in `folder` and copy the run's output to standard output.

    Args:
        flower: commands to the SuperLink.
        folder: the folder that `stage` filled.
        interrupted: polled during the run; when true the run is stopped.
        options: more options of `flwr run`.
    """
    arguments = ["run", str(folder / "app"), flower.connection, "--stream"]
    stream = _Stream(flower.start(*arguments, "--run-config", str(folder / "run-config.toml"), *options))
    try:
        _wait(stream.ended, interrupted)
        if interrupted():
            _stop(flower, stream)
            return Outcome(INTERRUPTED)
        if stream.run_id is None:
            return Outcome(NOT_STARTED, f"flwr run ended with code {stream.process.returncode}, as said above")
        return _ended(flower, stream, interrupted)
    finally:
        stream.process.terminate()
        stream.process.wait()


def _ended(flower: Flower, stream: "_Stream", interrupted: Callable[[], bool]) -> Outcome:
    """The run's result; if the stream of its log broke off early, wait for the run's end."""
    assert stream.run_id is not None
    status, reason = flower.run_status(stream.run_id)
    while not (status == UNKNOWN or status.startswith("finished")):
        time.sleep(_STATUS_SECONDS)
        if interrupted():
            _stop(flower, stream)
            return Outcome(INTERRUPTED)
        status, reason = flower.run_status(stream.run_id)
    return Outcome(status, reason, None if stream.run_directory is None else Path(stream.run_directory))


def _stop(flower: Flower, stream: "_Stream") -> None:
    """Stop the run, also one whose number `flwr run` has not printed yet."""
    deadline = time.monotonic() + _SUBMIT_SECONDS
    _wait(stream.ended, lambda: stream.run_id is not None or time.monotonic() > deadline)
    if (run_id := stream.run_id) is None:
        return
    print(f"stopping run {run_id}", file=sys.stderr, flush=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if flower.run("stop", run_id, flower.connection, timeout=_STOP_SECONDS).returncode == 0:
            return
    print(f"run {run_id} was not stopped; try: flwr stop {run_id} {flower.connection}", file=sys.stderr, flush=True)


def _wait(first: Callable[[], bool], second: Callable[[], bool]) -> None:
    """Wait until either is true."""
    while not first() and not second():
        time.sleep(_POLL_SECONDS)


@dataclass
class _Stream:
    """Copy of the output of `flwr run --stream` to the terminal; keeps the values that are needed later."""

    process: subprocess.Popen[str]
    run_id: str | None = None
    run_directory: str | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._copy, daemon=True)
        self.thread.start()

    def _copy(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # A closed terminal must not end the reading: a full pipe would stop the run.
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.write(line)
                sys.stdout.flush()
            plain = _ANSI.sub("", line)
            if self.run_id is None and (found := _RUN_ID.search(plain)):
                self.run_id = found[1]
            if found := _RUN_DIRECTORY.search(_said(plain)):
                self.run_directory = found[1]

    def ended(self) -> bool:
        return self.process.poll() is not None and not self.thread.is_alive()


def _said(line: str) -> str:
    """The message of a line of a log in JSON; any other line as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("message", "")) if isinstance(entry, dict) else line


@dataclass
class Signals:
    """Notes signals inside a `with` block instead of acting on them: nothing can cut the clean-up short."""

    received: bool = False
    _previous: dict[int, object] = field(default_factory=dict)

    def __enter__(self) -> "Signals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, _number: int, _frame: object) -> None:
        self.received = True

    def arrived(self) -> bool:
        """True if a signal has arrived."""
        return self.received
