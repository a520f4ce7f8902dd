"""The `subfl` command: one run or a Hydra multirun, and the commands around runs.

``subfl method=fedpub dataset=cora`` trains; ``subfl -m seed=0,1,2`` sweeps; ``subfl resume=RUN`` continues an
interrupted run; ``subfl report RUN...`` reports on finished runs; ``subfl launch ...`` runs the same app through ``flwr
run`` on a new SuperLink; ``subfl inspect ...`` describes the training data; ``subfl partition``, ``subfl deploy`` and
``subfl predict`` are for real machines.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from subfl_flower.code_folder import adopt, require_own_names
from subfl_flower.composition import composed_job, config_directory, readable_errors, resumes, validated
from subfl_flower.config import Config
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.overrides import classes_chosen, literal_paths, sweeps

_COMMANDS = {
    "report": "subfl_flower.evaluation.report",
    "analyse": "subfl_flower.analysis.analyse",
    "inspect": "subfl_flower.commands.inspect",
    "launch": "subfl_flower.launch",
    "partition": "subfl_flower.commands.partition",
    "predict": "subfl_flower.commands.predict",
    "recommend": "subfl_flower.commands.recommend",
    "deploy": "subfl_flower.deploy",
}
"""Modules whose `main` takes a command's arguments and returns its exit code; imported on use."""

_OK, _FAILED, _BAD_INPUT, _INTERRUPTED = 0, 1, 2, 130

_REFUSED = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS}
"""The system's reasons to refuse a path, which no program can know before it uses the path."""


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


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `subfl`; exits with 0, 1 (a run failed), 2 (bad input) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(arguments)
    except OSError as error:
        if error.errno not in _REFUSED or error.filename is None:
            raise
        command = " ".join(["subfl", *(word for word in arguments[:1] if word in _COMMANDS)])
        print(f"{command}: {os.fsdecode(error.filename)} cannot be used: {error.strerror}", file=sys.stderr)
        status = _BAD_INPUT
    sys.exit(status)


def _dispatch(arguments: list[str]) -> int:
    folder = Path.cwd()
    if arguments[:1] == ["--code"]:
        folder, arguments = Path(arguments[1] if len(arguments) > 1 else ""), arguments[2:]
        if not folder.is_dir() or folder == Path():
            print(f"subfl: --code {folder}: there is no such folder; give one with your modules", file=sys.stderr)
            return _BAD_INPUT
    command = arguments[0] if arguments else ""
    if command != "deploy" or arguments[1:2] == ["submit"]:  # a federation's machines import only installed packages
        adopt(folder)
    if command in _COMMANDS:
        run: Callable[[list[str]], int] = importlib.import_module(_COMMANDS[command]).main
        return run(arguments[1:])
    if resumes(arguments):
        return _resume(arguments)
    return _train(arguments)


def _resume(overrides: list[str]) -> int:
    """Resume an interrupted run."""
    from subfl_flower.simulation import simulate

    _calm()
    try:
        job = composed_job(overrides)
        summary = simulate(job.config, job.directory.absolute(), resume=True)
    except SubflError as error:
        print(f"subfl: {error}", file=sys.stderr)
        return _FAILED if isinstance(error, RunFailure) else _BAD_INPUT
    except KeyboardInterrupt:
        return _INTERRUPTED
    _print_result(job.config, summary, job.directory)
    return _INTERRUPTED if summary["status"] == "interrupted" else _OK


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
        return _BAD_INPUT
    except OSError as error:  # Hydra makes the run's folder
        print(f"subfl: hydra.run.dir: {error}; choose a folder that can be written", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        return _INTERRUPTED
    if jobs.crash is not None:
        raise jobs.crash
    if jobs.errors and not jobs.failed:
        print(f"subfl: {jobs.errors[0]}", file=sys.stderr)
        return _FAILED if isinstance(jobs.errors[0], RunFailure) else _BAD_INPUT
    if jobs.failed:
        print(f"subfl: {len(jobs.failed)} job(s) of the sweep failed:", *jobs.failed, sep="\n  ", file=sys.stderr)
        return _FAILED
    return _INTERRUPTED if jobs.interrupted else _OK


def _calm() -> None:
    """Silence messages of libraries."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Flower's database library announces its plugins
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # from libraries about other libraries


def _print_result(config: Config, summary: Mapping[str, Any], directory: Path) -> None:
    test = summary.get("test_at_best_validation")
    result = "no round finished" if test is None else f"test {test:.4f} at round {summary['best_round']}"
    if test is None and summary.get("test_last") is not None:
        result = f"test {summary['test_last']:.4f} after the last round; there was nothing to validate on"
    print(f"{config.method.name} on {config.dataset.name}: {result} ({summary['status']})")
    for line in _remarks(summary):
        print(line)
    print(f"run directory: {directory}", flush=True)


def _remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Remarks on a result: baselines to compare it with, and its privacy loss."""
    yield from _class_remarks(summary)
    if (bias_row := summary.get("bias_row")) and bias_row["test"] is not None:
        yield f"bias row on the same ratings: test {bias_row['test']:.4f}"
    if (popularity := summary.get("popularity")) and popularity["test"] is not None:
        yield f"popularity on the same items: test {popularity['test']:.4f}"
    if privacy := summary.get("privacy"):
        epsilon = privacy["user_level_epsilon"]
        level = "no finite epsilon" if epsilon is None else f"epsilon {epsilon:.4g} at delta {privacy['delta']:g}"
        covered = f"of the {privacy['covers']}"
        yield f"user-level differential privacy over {privacy['num_uploads']} uploads: {level}, {covered}"
        if privacy["per_coordinate_epsilon"] is not None:
            yield f"per-coordinate epsilon, of one value of one upload: {privacy['per_coordinate_epsilon']:.4g}"


def _class_remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Remarks on a classification: the majority class, figures that weigh classes equally, the worst client."""
    figures = summary.get("figures") or {}
    test, majority = summary.get("test_at_best_validation"), figures.get("test.majority")
    if test is None or majority is None:
        return
    words = {"test.macro_f1": "macro-F1", "test.balanced_accuracy": "balanced accuracy"}
    beside = [f"{word} {figures[name]:.4f}" for name, word in words.items() if figures.get(name) is not None]
    if worst := summary.get("worst_client"):
        beside.append(f"worst client {worst['client']}: {worst['test']:.4f}")
    yield "; ".join([f"majority class on the same nodes: {majority:.4f}", *([", ".join(beside)] if beside else [])])
    if test <= majority:
        yield "this does not exceed always predicting each client's most frequent training class"
    if share := figures.get("test.one_class"):
        measured = sum(value is not None for value in summary["per_client"]["test_at_best_validation"])
        yield f"{round(share * measured)} of {measured} clients' models predict one class only"


def _run_job(composed: DictConfig, said: set[str]) -> str:
    """Train one configuration in the runtime that it names; return the run's status. `said` are printed remarks."""
    require_own_names(HydraConfig.get().runtime.choices, config_directory())
    config = validated(composed)
    directory = Path(HydraConfig.get().runtime.output_dir)

    from subfl_flower.simulation import simulate

    summary = simulate(config, directory, said=said)
    if HydraConfig.get().mode == RunMode.RUN or summary.get("test_at_best_validation") is not None:
        _print_result(config, summary, directory)
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
