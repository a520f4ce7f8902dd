"""Training by the `subfl` command: one job, a Hydra multirun, or the continuation of an interrupted run."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from subfl_flower.code_folder import config_directory, require_own_names
from subfl_flower.commands.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, OK
from subfl_flower.commands.result_lines import print_result
from subfl_flower.composition import composed_job, readable_errors, resumes, validated
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.overrides import classes_chosen, literal_paths, sweeps


def main(arguments: list[str]) -> int:
    """Train as the overrides say, and return the exit code."""
    return _resume(arguments) if resumes(arguments) else _train(arguments)


class _Jobs:
    """Results of the jobs of this process.

    Exceptions are kept here instead of leaving a job, because Hydra would print additional lines about them.
    """

    def __init__(self) -> None:
        self.errors: list[SubflError] = []
        self.crash: Exception | None = None
        self.failed: list[str] = []
        self.interrupted = False
        self.said: set[str] = set()


def _resume(overrides: list[str]) -> int:
    """Resume an interrupted run."""
    from subfl_flower.simulation import simulate

    _calm()
    try:
        job = composed_job(overrides)
        summary = simulate(job.config, job.directory.absolute(), resume=True)
    except SubflError as error:
        print(f"subfl: {error}", file=sys.stderr)
        return FAILED if isinstance(error, RunFailure) else BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    print_result(job.config, summary, job.directory)
    return INTERRUPTED if summary["status"] == "interrupted" else OK


def _train(arguments: list[str]) -> int:
    """Run one job, or a sweep, by Hydra."""
    jobs = _Jobs()

    def job(composed: DictConfig) -> None:
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            status = _run_job(composed, jobs.said)
        except Exception as error:
            if isinstance(error, SubflError):
                jobs.errors.append(error)
            else:  # a bug, in this project or in a user's class: its stack trace is shown at the end
                jobs.crash = error
            if sweeping:  # the sweep continues; the failure is printed, recorded and counted at the end
                name = " ".join(HydraConfig.get().overrides.task)
                jobs.failed.append(f"{name}: {error}")
                print(f"subfl: job {HydraConfig.get().job.num} failed: {error}", file=sys.stderr)
                _record_failure(Path(HydraConfig.get().runtime.output_dir), composed, str(error))
        else:
            if status == "interrupted":
                jobs.interrupted = True
                if sweeping:
                    raise KeyboardInterrupt

    _calm()
    # Hydra prints stack traces unless it is asked for the exception itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["subfl", *literal_paths(classes_chosen(arguments), multirun=sweeps(arguments))]
    try:
        with readable_errors():
            hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="config")(job)()
    except SubflError as error:
        print(f"subfl: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:  # Hydra makes the run's folder
        print(f"subfl: hydra.run.dir: {error}; choose a folder that can be written", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    if jobs.crash is not None:
        raise jobs.crash
    if jobs.errors and not jobs.failed:
        print(f"subfl: {jobs.errors[0]}", file=sys.stderr)
        return FAILED if isinstance(jobs.errors[0], RunFailure) else BAD_INPUT
    if jobs.failed:
        print(f"subfl: {len(jobs.failed)} job(s) of the sweep failed:", *jobs.failed, sep="\n  ", file=sys.stderr)
        return FAILED
    return INTERRUPTED if jobs.interrupted else OK


def _calm() -> None:
    """Silence messages of libraries."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Flower's database library announces its plugins
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # from libraries about other libraries


def _run_job(composed: DictConfig, said: set[str]) -> str:
    """Train one configuration in the runtime that it names; return the run's status. `said` are printed remarks."""
    require_own_names(HydraConfig.get().runtime.choices, config_directory())
    config = validated(composed)
    directory = Path(HydraConfig.get().runtime.output_dir)

    from subfl_flower.simulation import simulate

    summary = simulate(config, directory, said=said)
    if HydraConfig.get().mode == RunMode.RUN or summary.get("test_at_best_validation") is not None:
        print_result(config, summary, directory)
    return str(summary["status"])


def _record_failure(directory: Path, composed: DictConfig, reason: str) -> None:
    """Write a summary into a sweep job's folder that states why there is no run."""
    from subfl_flower.runs.directory import RunDirectory

    directory.mkdir(parents=True, exist_ok=True)
    records = RunDirectory(directory)
    summary = records.summary() or {
        "method": composed.get("method", {}).get("name"),
        "dataset": composed.get("dataset", {}).get("name"),
        "partition": composed.get("partition", {}).get("name"),
        "seed": composed.get("seed"),
    }
    records.write_summary({**summary, "status": "failed", "error": reason})
