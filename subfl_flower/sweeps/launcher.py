"""Hydra's side of a sweep: the launcher of `subfl -m`, and the job for other launchers.

Hydra's sweepers make lists of overrides; a launcher runs a job for each. `SweepLauncher` gives them to the engine. A
launcher of others, such as joblib's, calls `train_for_hydra` for each job, maybe in another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from subfl_flower.code_folder import require_own_names
from subfl_flower.commands.result_lines import print_result
from subfl_flower.composition import config_directory, validated
from subfl_flower.config import Config, Sweep
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.evaluation.summary import lower_is_better
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.display import display_for, result_text
from subfl_flower.sweeps.engine import Job, checked_settings, run_jobs
from subfl_flower.sweeps.fingerprint import summary_settings
from subfl_flower.sweeps.job import Outcome, failure_of, record_failure, train_job


class SweepLauncher(Launcher):
    """Launcher that trains the jobs of a sweep and reuses finished ones.

    Attributes:
        ended: jobs and outcomes of all launches of this process since it was emptied.
    """

    ended: ClassVar[list[tuple[Job, Outcome | None]]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives every launcher."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train a job for each list of overrides.

        Raises:
            SubflError: a setting of the sweep is not allowed, or no job of a list has settings that can be used.
            KeyboardInterrupt: the user stopped the sweep.
        """
        setup_globals()
        sweep = _sweep_settings(self._config)
        if self._config.hydra.job.chdir:
            raise SubflError("hydra.job.chdir: jobs stay in the folder from which subfl was called; leave it out")
        composed = [self._composed(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        common = set(job_overrides[0]).intersection(*job_overrides[1:]) if len(job_overrides) > 1 else set()
        labels = [" ".join(each for each in overrides if each not in common) for overrides in job_overrides]
        jobs = [_job(*each) for each in zip(composed, labels, strict=True)]
        for job in jobs:
            if job.config is not None:
                require_direction(self._config.hydra.sweeper, job.config)
        # Hydra's own sweeper would stop after a batch with a failure.
        lenient = self._config.hydra.sweeper.get("_target_") == BasicSweeperConf._target_
        if lenient and not self.ended and all(job.config is None for job in jobs):
            raise SubflError(jobs[0].error)
        end = run_jobs(jobs, sweep, display_for(len(jobs)))
        self.ended.extend(zip(jobs, end.outcomes, strict=True))
        if end.interrupted:
            raise KeyboardInterrupt
        return [_returned(*each, lenient) for each in zip(composed, end.outcomes, strict=True)]

    def _composed(self, overrides: Sequence[str], number: int) -> DictConfig:
        composed: DictConfig = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id = str(number)
            composed.hydra.job.num = number
        return composed


def register_launcher() -> None:
    """Make the launcher known to Hydra, which takes plugins from packages named ``hydra_plugins`` alone."""
    Plugins.instance().class_name_to_class["hydra_plugins.subfl_flower.SweepLauncher"] = SweepLauncher


def train_for_hydra(composed: DictConfig) -> float | None:
    """Train the job that Hydra has composed, for a launcher that runs it itself.

    Returns:
        The best validation figure; None where nothing was validated.

    Raises:
        RunFailure: the job failed; the reason is in its summary, too.
        KeyboardInterrupt: the user stopped the run.
    """
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    try:
        require_own_names(hydra.runtime.choices, config_directory())
        config = validated(composed)
    except SubflError as error:
        if not RunDirectory(directory).rounds():
            record_failure(directory, summary_settings(composed), str(error))
        raise RunFailure(f"{directory.name}: {error}") from None
    require_direction(hydra.sweeper, config)
    outcome = train_job(config, directory, config.sweep.redo, progress=True)
    failure = failure_of(outcome)
    if failure is not None:
        raise RunFailure(str(failure))
    if outcome.reused:
        print(f"{outcome.directory.name}: {result_text(outcome)}", flush=True)
    else:
        print_result(config, outcome.summary, outcome.directory)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt
    return outcome.value


def require_direction(sweeper: Any, config: Config) -> None:
    """Refuse a search that would keep the worst figure.

    Args:
        sweeper: settings of the sweeper, which may have a direction, as Optuna's has.
        config: of a job.

    Raises:
        SubflError: the direction is not that of the task's metric.
    """
    direction = sweeper.get("direction") if isinstance(sweeper, DictConfig) else None
    if direction is None or OmegaConf.is_list(direction):
        return
    found = str(getattr(direction, "name", direction))
    metric = config.task.metric
    wanted = "minimize" if lower_is_better(metric) else "maximize"
    if found != wanted:
        better = "smaller" if wanted == "minimize" else "larger"
        raise SubflError(f"hydra.sweeper.direction={found}: a {better} {metric} is better; set it to {wanted}")


def _sweep_settings(composed: DictConfig) -> Sweep:
    given = OmegaConf.to_container(composed.sweep, resolve=True)
    assert isinstance(given, dict)
    return checked_settings({str(key): value for key, value in given.items()}, "sweep.")


def _job(composed: DictConfig, label: str) -> Job:
    """The job of a composed configuration; `label` names what sets it apart."""
    hydra, before = HydraConfig.instance(), HydraConfig.instance().cfg
    hydra.set_config(composed)
    try:
        directory = Path(str(composed.hydra.sweep.dir)).absolute() / str(composed.hydra.sweep.subdir)
        environment = {str(name): str(value) for name, value in composed.hydra.job.env_set.items()}
        try:
            return Job(label, directory, validated(composed), environment=environment)
        except SubflError as error:
            return Job(label, directory, error=str(error), settings=summary_settings(composed))
    finally:
        hydra.cfg = before


def _returned(composed: DictConfig, outcome: Outcome | None, lenient: bool) -> JobReturn:
    """The result of a job for Hydra's sweepers."""
    returned = JobReturn(overrides=list(composed.hydra.overrides.task), cfg=composed, status=JobStatus.COMPLETED)
    failure = None if outcome is None else failure_of(outcome)
    returned.return_value = None if outcome is None else outcome.value
    if failure is not None and not lenient:
        returned.status, returned.return_value = JobStatus.FAILED, failure
    return returned
