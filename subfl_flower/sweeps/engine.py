"""The jobs of a sweep, one after the other or side by side, and their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic
from hydra.core.utils import env_override

from subfl_flower.composition import composed_config
from subfl_flower.config import Config, Sweep, sentence
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.display import Display, display_for
from subfl_flower.sweeps.fingerprint import job_name
from subfl_flower.sweeps.job import (
    Found,
    Outcome,
    Redo,
    found_in,
    make_run_folder,
    newest,
    outcome_before,
    record_failure,
    train_job,
)


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        label: its overrides, for messages.
        directory: its folder.
        config: its configuration; None where that is not valid.
        error: the reason why it is not valid.
        settings: settings that identify it in the summary of a failure.
        environment: variables that are set while it runs.
    """

    label: str
    directory: Path
    config: Config | None = None
    error: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.directory.name


@dataclass(frozen=True)
class SweepEnd:
    """The end of some jobs.

    Attributes:
        outcomes: by job; None for those that were not begun.
        interrupted: true where the user stopped the sweep.
    """

    outcomes: list[Outcome | None]
    interrupted: bool


def run_sweep(
    overrides: Sequence[Sequence[str]],
    folder: Path,
    *,
    jobs: int | Literal["auto"] = 1,
    redo: Redo = "failed",
    show: bool = True,
    ended: Callable[[Outcome], None] | None = None,
) -> list[Path]:
    """Train a run for each list of overrides, and reuse the finished ones of earlier calls.

    Args:
        overrides: the overrides of each job, as on the command line.
        folder: holds a folder for each job, named by what the job computes.
        jobs: number of jobs at a time; see `config.Sweep`.
        redo: jobs of an earlier call that are repeated; see `config.Sweep`.
        show: show the progress: a table in a terminal, else a line a job.
        ended: called with the outcome of each job that has ended, or had before.

    Returns:
        The folder of each job's run, in the order of `overrides`. The summary of a run that failed says so.

    Raises:
        SubflError: an override is malformed or has a value that is not allowed, or the folder cannot be made; no job
            was begun.
        KeyboardInterrupt: the user stopped the sweep; the next call goes on.
    """
    settings = checked_settings({"jobs": jobs, "redo": redo})
    configs = [composed_config(list(each))[0] for each in overrides]
    asked = [
        Job(" ".join(each), folder.absolute() / job_name(config), config)
        for each, config in zip(overrides, configs, strict=True)
    ]
    make_run_folder(folder.absolute())
    display = display_for(len(asked), show)
    display.on_end = ended
    end = run_jobs(asked, settings, display)
    if end.interrupted:
        raise KeyboardInterrupt
    return [outcome.directory for outcome in end.outcomes if outcome is not None]


def checked_settings(values: Mapping[str, Any], prefix: str = "") -> Sweep:
    """Settings of a sweep.

    Args:
        values: by name.
        prefix: begins each name in an error.

    Raises:
        SubflError: a value is not allowed.
    """
    try:
        return Sweep.model_validate(values)
    except pydantic.ValidationError as error:
        raise SubflError(sentence(error, values, prefix)) from None


def run_jobs(jobs: Sequence[Job], settings: Sweep, display: Display) -> SweepEnd:
    """Train jobs, and reuse what is there.

    Jobs that share a folder differ in nothing with an effect on results; the first is trained, and counts for all.

    Args:
        jobs: the jobs.
        settings: number of jobs at a time, and which ones are repeated.
        display: shows the progress.
    """
    first = {job.directory: job for job in reversed(jobs)}
    distinct = [job for job in jobs if first[job.directory] is job]
    known: dict[Path, Outcome] = {}
    with display:
        for job in jobs:
            if first[job.directory] is not job:
                display.say(f"{job.label}: computes the same as {first[job.directory].label}, and is trained once")
        for job in distinct:
            display.add(job.directory, job.name, _rounds(job))
        for job in distinct:
            outcome = _without_training(job, settings.redo)
            if outcome is not None:
                known[job.directory] = outcome
                display.ended(job.directory, outcome)
        left = [job for job in distinct if job.directory not in known]
        from subfl_flower.sweeps.processes import number_of_processes, train_side_by_side  # imports joblib

        processes = number_of_processes(settings.jobs, [job.config for job in left if job.config is not None])
        if processes > 1:
            interrupted = train_side_by_side(left, processes, settings.redo, display, known)
        else:
            interrupted = _train_in_turn(left, settings.redo, display, known)
    return SweepEnd([known.get(job.directory) for job in jobs], interrupted)


def _train_in_turn(jobs: Sequence[Job], redo: Redo, display: Display, known: dict[Path, Outcome]) -> bool:
    """Train one job after the other; true where the user stopped."""
    for job in jobs:
        assert job.config is not None
        display.begun(job.directory)
        try:
            with _environment(job):
                outcome = train_job(job.config, job.directory, redo, display.said)
        except KeyboardInterrupt:
            return True
        known[job.directory] = outcome
        display.ended(job.directory, outcome)
        if outcome.status == "interrupted" and not outcome.reused:
            return True
    return False


def _without_training(job: Job, redo: Redo) -> Outcome | None:
    """The outcome of a job that cannot or need not be trained; None of one that is to be trained."""
    if job.config is None:
        assert job.error is not None
        if not RunDirectory(job.directory).rounds():
            record_failure(job.directory, job.settings, job.error)
        return Outcome(job.directory, "failed", job.settings, job.error, bad_input=True)
    place = newest(job.directory)
    try:
        found = found_in(place, job.config)
    except SubflError as error:
        return Outcome(place, "failed", {}, str(error), bad_input=True)
    beside = found in (Found.NOTHING, Found.OUTDATED)  # what has changed is said where the job is trained
    return None if beside or redo == "all" else outcome_before(place, found, redo)


def _rounds(job: Job) -> int:
    return 0 if job.config is None else job.config.federation.rounds


def _environment(job: Job) -> AbstractContextManager[None]:
    set_for: Callable[[dict[str, str]], AbstractContextManager[None]] = env_override
    return set_for(dict(job.environment)) if job.environment else nullcontext()
