"""Training by the `subfl` command: one job, a Hydra multirun, or the continuation of an interrupted run."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.code_folder import config_directory, require_own_names
from subfl_flower.commands.exit_codes import INTERRUPTED, OK
from subfl_flower.commands.result_lines import print_result
from subfl_flower.composition import Job, composed_job, readable_errors, resumes, single_job, validated
from subfl_flower.errors import SubflError, folder_chosen_by
from subfl_flower.overrides import RUN_DIR, SWEEP_DIR, classes_chosen, literal_paths, sweeps
from subfl_flower.sweeps.hydra_folder import HydraFolder
from subfl_flower.sweeps.job import sole_user, train_here
from subfl_flower.sweeps.launcher import SweepLauncher, register_launcher, train_for_hydra
from subfl_flower.sweeps.report import end_of_sweep, with_extra


def main(arguments: list[str]) -> int:
    """Train as the overrides say, and return the exit code.

    Raises:
        SubflError: the overrides or the data cannot be used, or the run failed.
    """
    if resumes(arguments):
        return _resume(arguments)
    job = single_job(arguments)
    return _train(arguments) if job is None else _train_once(job)


def _train_once(job: Job) -> int:
    """Train one run whose settings are valid."""
    _calm()
    with folder_chosen_by(RUN_DIR):
        summary = train_here(job.config, job.directory.absolute())
    print_result(job.config, summary, job.directory)
    return INTERRUPTED if summary["status"] == "interrupted" else OK


def _resume(overrides: list[str]) -> int:
    """Resume an interrupted run."""
    from subfl_flower.simulation import simulate

    _calm()
    job = composed_job(overrides)
    with sole_user(job.directory):
        summary = simulate(job.config, job.directory.absolute(), resume=True)
    print_result(job.config, summary, job.directory)
    return INTERRUPTED if summary["status"] == "interrupted" else OK


def _train(arguments: list[str]) -> int:
    """Run one job, or a sweep, by Hydra."""
    _require_known_options(arguments)
    _calm()
    _single.begin()
    SweepLauncher.ended.clear()
    HydraFolder.forget()
    register_launcher()
    # Hydra prints stack traces unless it is asked for the exception itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["subfl", *literal_paths(classes_chosen(arguments), multirun=sweeps(arguments))]
    refused: SubflError | None = None
    interrupted = False
    try:
        with readable_errors():
            hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="config")(_job)()
    except SubflError as error:
        refused = with_extra(error)
    except OSError as error:  # Hydra makes the run's folder
        refused = SubflError(
            f"{HydraFolder.key}: {HydraFolder.path} cannot be made ({error.strerror or error}); "
            "choose a folder that can be written"
        )
    except KeyboardInterrupt:
        interrupted = True
    HydraFolder.remove_if_unused()
    if HydraFolder.path is not None and HydraFolder.key == SWEEP_DIR:
        return end_of_sweep(HydraFolder.path, HydraFolder.since, SweepLauncher.ended, refused, interrupted)
    if _single.crash is not None:
        raise _single.crash
    refused = refused or _single.error
    if refused is not None:
        raise refused
    return INTERRUPTED if interrupted or _single.interrupted else OK


def _require_known_options(arguments: list[str]) -> None:
    """Raise SubflError for an option that Hydra does not have; Hydra would print its usage."""
    parser = get_args_parser()
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
        option, _, value = unknown[0].partition("=")
        known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
        advice = did_you_mean(option, known) or "; see subfl --help"
        if value:
            advice = f"; a setting has no dashes, as in {unknown[0].lstrip('-')}"
        raise SubflError(f"{unknown[0]}: there is no such option{advice}")


class _Single:
    """The end of a run that is no sweep's job.

    Exceptions are kept here instead of leaving Hydra's job, because Hydra would print additional lines about them.
    """

    def begin(self) -> None:
        """Forget an earlier run of this process."""
        self.error: SubflError | None = None
        self.crash: Exception | None = None
        self.interrupted = False


_single = _Single()


def _job(composed: DictConfig) -> float | None:
    """Train the configuration that Hydra has composed. Launchers may call it in another process."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return train_for_hydra(composed)
    try:
        require_own_names(HydraConfig.get().runtime.choices, config_directory())
        config = validated(composed)
        directory = Path(HydraConfig.get().runtime.output_dir)
        with folder_chosen_by(RUN_DIR):
            summary = train_here(config, directory)
        print_result(config, summary, directory)
        _single.interrupted = summary["status"] == "interrupted"
    except SubflError as error:
        _single.error = error
    except Exception as error:  # a bug, in this project or in a user's class: its stack trace is shown at the end
        _single.crash = error
    return None


def _calm() -> None:
    """Silence messages of libraries."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Flower's database library announces its plugins
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # from libraries about other libraries
