"""One job in its folder: begun, continued from its checkpoint, started again, or reused."""

from __future__ import annotations

import glob
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from subfl_flower.config import Config
from subfl_flower.errors import RunFailure, SubflError, UnusableFolder
from subfl_flower.registry import stored_config
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.sources import changed_sources
from subfl_flower.storage.durable_files import make_private_folder
from subfl_flower.storage.folder_lock import folder_lock
from subfl_flower.sweeps.fingerprint import difference

Redo = Literal["failed", "all", "none"]


class Found(Enum):
    """The run that a folder holds."""

    NOTHING = "nothing"
    COMPLETED = "a completed run"
    OUTDATED = "a completed run of files or code that have changed since"
    RESUMABLE = "a run that was cut off, with a checkpoint"
    BROKEN = "a run that was cut off or failed, without a usable checkpoint"


@dataclass(frozen=True)
class Outcome:
    """The end of a job.

    Attributes:
        directory: the run's folder.
        status: ``completed``, ``interrupted`` or ``failed``; ``left`` for one that `redo` leaves as it is.
        summary: the run's summary, empty where there is none.
        error: the reason of a failure.
        bad_input: true where the job could not begin because of its settings or its folder.
        reused: true for a run that an earlier call completed.
    """

    directory: Path
    status: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    bad_input: bool = False
    reused: bool = False

    @property
    def value(self) -> float | None:
        """The best validation figure; None where nothing was validated, or the run was not completed."""
        return self.summary.get("best_validation") if self.status == "completed" else None


def found_in(directory: Path, config: Config) -> Found:
    """Look into a folder, and change nothing.

    Args:
        directory: the folder; it may be missing.
        config: configuration of the run that is wanted.

    Raises:
        SubflError: the folder holds a run of another configuration, or its files cannot be read.
    """
    from subfl_flower.server.checkpoint import Checkpoint

    run = RunDirectory(directory)
    begun = run.config_path.exists()
    if not begun and not RunDirectory.is_run(directory):
        return Found.NOTHING
    summary = run.summary()
    if begun:
        other = difference(stored_config(directory), config)
        if other is not None:
            raise UnusableFolder(directory, f"already holds a run of another configuration ({other})")
    elif run.rounds() or (summary or {}).get("status") == "completed":
        raise UnusableFolder(directory, "already holds a run, without its config.yaml")
    if (summary or {}).get("status") == "completed":
        return Found.OUTDATED if changed_sources(config, run.data()) else Found.COMPLETED
    return Found.RESUMABLE if Checkpoint.is_in(run.checkpoint_folder) else Found.BROKEN


def train_here(
    config: Config, directory: Path, said: set[str] | None = None, lines: bool | None = False
) -> dict[str, Any]:
    """Train in a folder; continue the run in it that was cut off, if it has the same configuration.

    Args:
        config: configuration of the run.
        directory: the run directory; made if need be.
        said: remarks on data that were printed before; this run's are added.
        lines: print progress lines where there is no terminal; None shows no progress.

    Returns:
        The summary.

    Raises:
        SubflError: the folder holds a completed run, a run of another configuration, or one that another process
            trains; or see `simulate`.
    """
    made: list[Path] = []
    try:
        make_run_folder(directory, made)
        with sole_user(directory):
            found = found_in(directory, config)
            if found is Found.OUTDATED:
                raise UnusableFolder(directory, f"already holds a run, completed {_before_change(directory, config)}")
            if found is Found.COMPLETED:
                completed = f"already holds a run, completed with this configuration (subfl report {directory})"
                raise UnusableFolder(directory, completed)
            return _train(config, directory, found, said, lines)
    finally:
        with suppress(OSError):  # the first that is not empty; all are empty where the data were refused
            for folder in made:
                folder.rmdir()


def make_run_folder(directory: Path, made: list[Path] | None = None) -> None:
    """Make a folder of a run or a sweep for its owner alone, and the folders that it lies in.

    Args:
        directory: the folder; it may exist.
        made: receives the folders that are new, the innermost first.

    Raises:
        UnusableFolder: it cannot be made, or is a file.
    """
    made = [] if made is None else made
    try:
        made += [folder for folder in (directory, *directory.parents) if not folder.exists()]
        directory.parent.mkdir(parents=True, exist_ok=True)
        make_private_folder(directory)
    except OSError as error:
        raise UnusableFolder(directory, f"cannot be made: {error.strerror or error}") from error
    if not directory.is_dir():
        raise UnusableFolder(directory, "is not a folder")


@contextmanager
def sole_user(directory: Path) -> Iterator[None]:
    """Lock a run's folder, for the time of the block.

    Raises:
        SubflError: another process trains in it.
    """
    with folder_lock(directory, wait=False) as ours:
        if not ours:
            raise SubflError(
                f"{directory}: another process is training this run; wait for it, or choose another folder"
            )
        yield


def train_job(
    config: Config, directory: Path, redo: Redo = "failed", said: set[str] | None = None, progress: bool = False
) -> Outcome:
    """Train a job of a sweep, unless an earlier call has finished it; a failure is recorded in its folder.

    A folder that another process trains in is waited for. A completed run is never rewritten: with ``redo=all``, and
    where the user's files or code have changed since, the job is trained in a folder beside it, with a number.

    Args:
        config: configuration of the run.
        directory: the job's folder.
        redo: jobs of an earlier call that are repeated; see `config.Sweep`.
        said: remarks on data that earlier jobs have printed; this job's are added.
        progress: show a progress bar where there is a terminal.

    Raises:
        KeyboardInterrupt: a second Ctrl-C ended the run at once.
    """
    place = newest(directory)
    try:
        make_run_folder(place)
        with folder_lock(place, wait=True):
            found = found_in(place, config)
            if found is Found.OUTDATED:
                kept = "and is kept, because of sweep.redo=none" if redo == "none" else "so that it is trained again"
                print(f"{place}: was completed {_before_change(place, config)}, {kept}", file=sys.stderr, flush=True)
            if (found is Found.OUTDATED and redo != "none") or (found is Found.COMPLETED and redo == "all"):
                return train_job(config, _beside(directory), "failed", said, progress)
            before = outcome_before(place, found, redo)
            if before is not None:
                return before
            try:
                summary = _train(config, place, found, said, False if progress else None)
            except Exception as error:
                if not isinstance(error, SubflError):  # a bug, in this project or in a user's class
                    traceback.print_exc()
                record_failure(place, settings_of(config), one_sentence(error))
                return Outcome(place, "failed", RunDirectory(place).summary() or {}, one_sentence(error))
    except SubflError as error:  # the folder cannot be used, and is left as it is
        return Outcome(place, "failed", {}, str(error), bad_input=True)
    return Outcome(place, str(summary["status"]), summary)


def outcome_before(directory: Path, found: Found, redo: Redo) -> Outcome | None:
    """The outcome of an earlier call that stands; None where the job is to be trained."""
    summary = RunDirectory(directory).summary() or {}
    if found is Found.COMPLETED or (found is Found.OUTDATED and redo == "none"):
        return Outcome(directory, "completed", summary, reused=True)
    if redo == "none" and found is not Found.NOTHING:
        status = str(summary.get("status", "interrupted"))
        return Outcome(directory, status, summary, summary.get("error"), reused=True)
    return None


def _before_change(directory: Path, config: Config) -> str:
    """The user's files and code that have changed since the run in a folder, as the end of a sentence."""
    return f"before {', '.join(changed_sources(config, RunDirectory(directory).data()))} changed"


def newest(directory: Path) -> Path:
    """The folder of a job's newest run: `directory`, or the last one beside it that ``redo=all`` has made."""
    number = _last_number(directory)
    return directory if number == 1 else directory.with_name(f"{directory.name}-{number}")


def _beside(directory: Path) -> Path:
    """The folder beside a job's runs in which it is trained once more."""
    return directory.with_name(f"{directory.name}-{_last_number(directory) + 1}")


def _last_number(directory: Path) -> int:
    beside = directory.parent.glob(f"{glob.escape(directory.name)}-*")
    pattern = re.compile(re.escape(directory.name) + r"-(\d+)")
    return max((int(match[1]) for path in beside if (match := pattern.fullmatch(path.name))), default=1)


def record_failure(directory: Path, settings: Mapping[str, Any], reason: str) -> None:
    """Write into a job's folder why there is no completed run.

    Args:
        directory: the job's folder; made if need be.
        settings: settings that identify the run, where it has no summary.
        reason: one sentence.
    """
    make_private_folder(directory)
    records = RunDirectory(directory)
    records.write_summary({**(records.summary() or settings), "status": "failed", "error": reason})


def one_sentence(error: BaseException) -> str:
    """The reason of a failure, on one line."""
    text = str(error) if isinstance(error, SubflError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _train(config: Config, directory: Path, found: Found, said: set[str] | None, lines: bool | None) -> dict[str, Any]:
    from subfl_flower.simulation import simulate

    if found is Found.RESUMABLE:
        reached, why = _reached(config, directory)
        if why is None:
            print(f"{directory}: continues after round {reached}", file=sys.stderr, flush=True)
            return simulate(config, directory, resume=True, said=said, lines=lines)
        print(f"{directory}: starts again, because {why}", file=sys.stderr, flush=True)
    elif found is Found.BROKEN and RunDirectory(directory).rounds():
        print(f"{directory}: starts again, because it has no checkpoint", file=sys.stderr, flush=True)
    if found is not Found.NOTHING:
        RunDirectory(directory).clear()
    return simulate(config, directory, said=said, lines=lines)


def _reached(config: Config, directory: Path) -> tuple[int, str | None]:
    """The last round of a run's checkpoint, and the reason why the run cannot be continued from it."""
    from subfl_flower.server.federation import resumable

    if changed := changed_sources(config, RunDirectory(directory).data()):
        return 0, f"{', '.join(changed)} changed"
    try:
        checkpoint = resumable(config, directory)
        RunDirectory(directory).rounds_up_to(checkpoint.server_round)
    except SubflError as error:
        return 0, str(error)
    return checkpoint.server_round, None


def settings_of(config: Config) -> dict[str, Any]:
    """Settings that identify a run in its summary."""
    parts = {"method": config.method, "dataset": config.dataset, "partition": config.partition}
    return {**{name: part.name for name, part in parts.items()}, "seed": config.seed}


def failure_of(outcome: Outcome) -> SubflError | None:
    """The error by which a job's failure is told to a caller; None where there is none."""
    if outcome.status != "failed":
        return None
    said = f"{outcome.directory.name}: {outcome.error}"
    return SubflError(said) if outcome.bad_input else RunFailure(said)
