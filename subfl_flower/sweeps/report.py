"""The end of a sweep on the command line: the table, the failures, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from subfl_flower.commands.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, OK
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.evaluation.runs import Run, load_runs
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.engine import Job
from subfl_flower.sweeps.job import Outcome
from subfl_flower.sweeps.table import print_sweep_table

_PLUGINS = {"hydra/sweeper=optuna": "hydra-optuna-sweeper", "hydra/launcher=joblib": "hydra-joblib-launcher"}


def end_of_sweep(
    folder: Path,
    since: float,
    ended: Sequence[tuple[Job, Outcome | None]],
    error: SubflError | None,
    interrupted: bool,
) -> int:
    """Print how a sweep ended, and return the exit code.

    Args:
        folder: of the sweep.
        since: time of its start, in seconds since the epoch.
        ended: its jobs and their outcomes; empty where another launcher ran them.
        error: the error that ended it, if any.
        interrupted: true where the user stopped it.
    """
    if ended:
        places = [outcome.directory for _, outcome in ended if outcome is not None]
        failed = [
            f"{job.label or job.name}: {outcome.error}"
            for job, outcome in ended
            if outcome is not None and outcome.status == "failed"
        ]
        waiting = sum(outcome is None for _, outcome in ended)
        unfinished = [outcome for _, outcome in ended if outcome is not None and outcome.status != "completed"]
    else:
        runs = load_runs([folder]) if _holds_runs(folder) else []
        places, waiting = [run.path for run in runs], 0
        failed = [f"{run.path.name}: {run.figures.get('error')}" for run in runs if _failed_since(run, since)]
        unfinished = []
    if places:
        print_sweep_table(places)
        print(f"runs: {folder}", flush=True)
    if error is not None and not failed:
        print(f"subfl: {error}", file=sys.stderr)
        return FAILED if isinstance(error, RunFailure) else BAD_INPUT
    if failed:
        print(f"subfl: {len(failed)} job(s) of the sweep failed:", *failed, sep="\n  ", file=sys.stderr)
    if interrupted:
        left = f"; {waiting} job(s) are left" if waiting else ""
        print(f"subfl: interrupted{left}; the same command with hydra.sweep.dir={folder} goes on", file=sys.stderr)
        return INTERRUPTED
    return FAILED if failed or unfinished else OK


def with_extra(error: SubflError) -> SubflError:
    """An error that names the extra to install, where a plugin of Hydra's is missing."""
    for choice, package in _PLUGINS.items():
        if str(error).startswith(f"{choice}: there is no such choice"):
            return SubflError(f"{choice}: {package} is not installed; pip install 'subfl-flower[sweep]' brings it")
    return error


def _holds_runs(folder: Path) -> bool:
    return folder.is_dir() and any(RunDirectory.is_run(path) for path in folder.rglob("*") if path.is_dir())


def _failed_since(run: Run, since: float) -> bool:
    changed = max((path.stat().st_mtime for path in run.path.glob("summary.json")), default=0.0)
    return run.status == "failed" and changed >= since
