"""One federation from start to end: SuperLink, `flwr run`, its true result, and a complete clean-up."""

import contextlib
import shutil
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.flower.process_tree import guarded_launch
from subfl_flower.flower.submission import COMPLETED, INTERRUPTED, Outcome, Signals, overrides_toml, stage, submit
from subfl_flower.flower.superlink import launch_environment, start_superlink
from subfl_flower.launch.request import Request, federation_config

_ATTEMPTS = 5


def run_federation(request: Request) -> Outcome:
    """Run the app with `flwr run` on a new SuperLink, stream the output, and end every process of the launch.

    Must be called in the main thread, since it listens to signals: SIGINT, SIGTERM and SIGHUP stop the run.
    In every case, errors included, no process of the launch is left when it returns. Of the launch's folder
    in `request.home` only the SuperLink's log is kept, and only when the run did not complete.

    Raises:
        SubflError: when the federation cannot be started.
    """
    config, run_config = federation_config(request), overrides_toml(request.overrides, request.code)
    folder = _new_folder(request.home)
    # Ray's Unix sockets allow paths of 107 characters: its folder cannot be inside of `folder`.
    ray_folder = Path(tempfile.mkdtemp(prefix="subfl-", dir="/tmp"))
    launch_id = uuid.uuid4().hex
    environment = launch_environment(folder, ray_folder, launch_id, request.patience)
    outcome = Outcome(INTERRUPTED)
    log = None
    with Signals() as signals:
        try:
            with guarded_launch(launch_id, scratch=str(ray_folder)):
                stage(request.app, run_config, folder)
                if flower := start_superlink(request.folder, folder, environment, signals.arrived):
                    options = ("--federation-config", config)
                    outcome = submit(flower, folder, signals.arrived, *options)
        finally:
            shutil.rmtree(ray_folder, ignore_errors=True)
            log = _clear(folder, keep_log=outcome.status != COMPLETED)
    directory = None if outcome.run_directory is None else request.folder / outcome.run_directory
    return replace(outcome, run_directory=directory, log=log)


def _new_folder(home: Path) -> Path:
    """A new folder for one launch in the folder that Flower writes into."""
    launches = home / "launches"
    for attempt in range(_ATTEMPTS):
        try:
            launches.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=launches))
        except OSError as error:
            # Another launch that ends removes the empty folder.
            if not isinstance(error, FileNotFoundError) or attempt + 1 == _ATTEMPTS:
                raise SubflError(f"--home {home}: {error.strerror}; it must be a folder to write in") from error
    raise AssertionError


def _clear(folder: Path, keep_log: bool) -> Path | None:
    """Remove a launch's folder, except for the SuperLink's log where wanted; return that log's path."""
    log = folder / "superlink.log"
    if not (keep_log and log.is_file()):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others, which are not empty, stay
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
        return None
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry != log:
            entry.unlink(missing_ok=True)
    return log
