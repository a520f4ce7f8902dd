"""Hydra's plugins: Optuna's search by the validation figure, joblib's processes; both reuse what is there."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from run_outcomes import Outcome
from small_runs import SMALL

from subfl_flower.cli import main
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.sweeps.report import with_extra

Subfl = Callable[..., Outcome]


def is_installed(plugin: str) -> bool:
    return importlib.util.find_spec("hydra_plugins") is not None and (
        importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    )


optuna = pytest.mark.skipif(not is_installed("hydra_optuna_sweeper"), reason="hydra-optuna-sweeper is not installed")
joblib = pytest.mark.skipif(not is_installed("hydra_joblib_launcher"), reason="hydra-joblib-launcher is not installed")


@pytest.fixture
def subfl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Subfl:
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            given = {override.partition("=")[0] for override in overrides}
            main(
                [*(each for each in SMALL if each.partition("=")[0] not in given), "hydra.sweep.dir=sweep", *overrides]
            )
        out, err = capfd.readouterr()
        return Outcome(tmp_path / "sweep", int(ended.value.code or 0), out, err)

    return run


SEARCH = ("+experiment=search", "hydra.sweeper.n_trials=4")


@optuna
def test_the_best_value_of_a_search_is_the_best_of_its_trials(subfl: Subfl) -> None:
    outcome = subfl(*SEARCH)
    assert outcome.code == 0, outcome.stderr
    runs = load_runs([outcome.directory])
    values = {run.config["optimizer"]["lr"]: max(record["validation"] for record in run.rounds) for run in runs}
    found = yaml.safe_load((outcome.directory / "optimization_results.yaml").read_text())
    assert len(values) == 4 and found["best_value"] == max(values.values())
    assert values[found["best_params"]["optimizer.lr"]] == found["best_value"]
    before = {run.path: run.path.stat().st_mtime_ns for run in runs}
    again = subfl(*SEARCH, "hydra.sweeper.n_trials=5")  # goes on: the sampler has a seed
    assert again.code == 0 and again.stdout.count("(completed before)") == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


@optuna
def test_a_failed_trial_is_one_failed_trial(subfl: Subfl) -> None:
    outcome = subfl(*SEARCH, "partition.clients=choice(3,5000)", "optimizer.lr=0.01")
    statuses = {run.status for run in load_runs([outcome.directory])}
    assert outcome.code == 1 and statuses == {"completed", "failed"}
    found = yaml.safe_load((outcome.directory / "optimization_results.yaml").read_text())
    assert found["best_params"] == {"partition.clients": 3}


@optuna
def test_a_search_for_the_worst_is_refused(subfl: Subfl) -> None:
    outcome = subfl(*SEARCH, "hydra.sweeper.direction=minimize")
    assert outcome.code == 2
    said = "subfl: hydra.sweeper.direction=minimize: a larger accuracy is better; set it to maximize"
    assert said in outcome.stderr.splitlines()
    assert not outcome.directory.exists()


@joblib
def test_a_failing_job_of_joblib_ends_with_1_and_completed_jobs_are_reused(subfl: Subfl) -> None:
    overrides = ("hydra.mode=MULTIRUN", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "partition.clients=3,5000")
    outcome = subfl(*overrides)
    assert outcome.code == 1
    assert "1 job(s) of the sweep failed:" in outcome.stderr and "is more than the 1797 nodes" in outcome.stderr
    (completed,) = (run for run in load_runs([outcome.directory]) if run.status == "completed")
    before = completed.path.joinpath("summary.json").read_bytes()
    again = subfl(*overrides[:3], "partition.clients=3,4")
    assert completed.path.joinpath("summary.json").read_bytes() == before
    assert again.code == 0 and re.search(r"1 failed", again.stdout)  # the failed one is in the folder, and told of
    assert {run.clients for run in load_runs([again.directory]) if run.status == "completed"} == {3, 4}


def test_a_missing_plugin_names_the_extra() -> None:
    error = with_extra(SubflError("hydra/sweeper=optuna: there is no such choice; available: basic"))
    assert str(error) == (
        "hydra/sweeper=optuna: hydra-optuna-sweeper is not installed; pip install 'subfl-flower[sweep]' brings it"
    )
    other = SubflError("hydra/sweeper=nowhere: there is no such choice; available: basic")
    assert with_extra(other) is other
