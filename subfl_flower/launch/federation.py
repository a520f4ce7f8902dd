"""One federation from start to end: SuperLink, `flwr run`, its true result, and nothing left behind."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.launch.processes import guarded_launch
from subfl_flower.launch.request import Request, federation_config, overrides_toml
from subfl_flower.launch.staging import stage_app
from subfl_flower.launch.superlink import CONNECTION, SuperLink, launch_environment, start_superlink

COMPLETED = "finished:completed"
INTERRUPTED = "interrupted"
NOT_STARTED = "not started"

_POLL_SECONDS = 0.05
_STOP_SECONDS = 20.0
_RUN_ID = re.compile(r"Successfully started run (\d+)")
_RUN_DIRECTORY = re.compile(r"\brun directory: (.*\S)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `status` is Flower's own word, such as `finished:completed`, or `interrupted` when a signal came, or
    `not started` when `flwr run` was refused. `reason` is Flower's detail, `run_directory` what the ServerApp
    named, `log` the SuperLink's log where it was kept.
    """

    status: str
    reason: str = ""
    run_directory: Path | None = None
    log: Path | None = None


def run_federation(request: Request) -> Outcome:
    """Runs the app with `flwr run` on a SuperLink of its own, streams the output, and ends what it started.

    Must be called in the main thread, since it listens to signals: SIGINT, SIGTERM and SIGHUP stop the run.
    In every case, errors included, no process of the launch is left when it returns. Of the launch's folder
    in `request.home` only the SuperLink's log is kept, and only when the run did not complete.

    Raises:
        SubflError: when the federation cannot be started.
    """
    config, run_config = federation_config(request), overrides_toml(request.overrides)
    launches = request.home / "launches"
    try:
        launches.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=launches))
    except OSError as error:
        raise SubflError(f"--home {request.home}: {error.strerror}; it must be a folder to write in") from error
    # Ray's Unix sockets allow paths of 107 characters: its folder cannot be inside of `folder`.
    ray_folder = Path(tempfile.mkdtemp(prefix="subfl-", dir="/tmp"))
    launch_id = uuid.uuid4().hex
    environment = launch_environment(folder, ray_folder, launch_id)
    outcome = Outcome(INTERRUPTED)
    log = None
    with _Signals() as signals:
        try:
            with guarded_launch(launch_id, scratch=str(ray_folder)):
                stage_app(request.app, folder / "app")
                (folder / "run-config.toml").write_text(run_config, encoding="utf-8")
                if superlink := start_superlink(request.app, folder, environment, signals.arrived):
                    outcome = _run(superlink, request.app, folder, config, signals)
        finally:
            shutil.rmtree(ray_folder, ignore_errors=True)
            log = _clear(folder, keep_log=outcome.status != COMPLETED)
    return replace(outcome, log=log)


def _run(superlink: SuperLink, app: Path, folder: Path, config: str, signals: "_Signals") -> Outcome:
    """Submits the staged app, follows its log to the end or to a signal, and asks how it ended."""
    arguments = ["run", str(folder / "app"), CONNECTION, "--stream"]
    arguments += ["--run-config", str(folder / "run-config.toml"), "--federation-config", config]
    stream = _Stream(superlink.flwr_streaming(*arguments))
    while not stream.ended() and not signals.arrived():
        time.sleep(_POLL_SECONDS)
    if signals.arrived():
        if stream.run_id is not None:
            print(f"stopping run {stream.run_id}", file=sys.stderr, flush=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                superlink.flwr("stop", stream.run_id, CONNECTION, timeout=_STOP_SECONDS)
        return Outcome(INTERRUPTED)
    if stream.run_id is None:
        return Outcome(NOT_STARTED, f"flwr run ended with code {stream.process.returncode}, as said above")
    status, reason = superlink.run_status(stream.run_id)
    directory = None if stream.run_directory is None else app / stream.run_directory
    return Outcome(status, reason, directory)


@dataclass
class _Stream:
    """Copies the output of `flwr run --stream` to the terminal and keeps what is needed later."""

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
            if found := _RUN_DIRECTORY.search(plain):
                self.run_directory = found[1]

    def ended(self) -> bool:
        return self.process.poll() is not None and not self.thread.is_alive()


@dataclass
class _Signals:
    """Notes signals inside a `with` block instead of acting on them: nothing can cut the clean-up short."""

    received: bool = False
    _previous: dict[int, object] = field(default_factory=dict)

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, _number: int, _frame: object) -> None:
        self.received = True

    def arrived(self) -> bool:
        return self.received


def _clear(folder: Path, keep_log: bool) -> Path | None:
    """Removes a launch's folder, except for the SuperLink's log where wanted; returns that log's path."""
    log = folder / "superlink.log"
    if not (keep_log and log.is_file()):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry != log:
            entry.unlink(missing_ok=True)
    return log
