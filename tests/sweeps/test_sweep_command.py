"""`subfl -m` called again: what is there is reused, the rest is trained, and one table tells of both."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_outcomes import Outcome, start
from small_runs import SMALL, files, numbers

from subfl_flower.cli import main
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.engine import run_sweep
from subfl_flower.sweeps.fingerprint import job_name

Subfl = Callable[..., Outcome]


@pytest.fixture
def subfl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Subfl:
    """A sweep in this process, into the folder ``sweep``."""
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main(["-m", *SMALL, "hydra.sweep.dir=sweep", *overrides])
        out, err = capfd.readouterr()
        return Outcome(tmp_path / "sweep", int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders in which runs were begun."""
    names: list[str] = []
    create = RunDirectory.create.__func__  # type: ignore[attr-defined]

    def counted(cls: type[RunDirectory], path: Path) -> RunDirectory:
        names.append(path.name)
        return create(cls, path)  # type: ignore[no-any-return]

    monkeypatch.setattr(RunDirectory, "create", classmethod(counted))
    return names


def name(*overrides: str) -> str:
    return job_name(composed_config([*SMALL, *overrides])[0])


def test_a_longer_list_trains_what_is_new_and_reports_all(subfl: Subfl, trained: list[str], tmp_path: Path) -> None:
    assert subfl("seed=0,1").code == 0
    assert trained == [name("seed=0"), name("seed=1")]
    before = files(tmp_path / "sweep" / name("seed=0"))
    trained.clear()
    outcome = subfl("seed=0,1,2", "runtime.chunk=1")
    assert outcome.code == 0 and trained == [name("seed=2")]
    assert files(tmp_path / "sweep" / name("seed=0")) == before
    (row,) = [line.split() for line in outcome.stdout.splitlines() if line.split()[:1] == ["digits"]]
    assert row[1:3] == ["metis", "3"] and row[5:7] == ["fedavg", "3"] and row[-2:] == ["3", "completed"]
    best = [max(numbers(tmp_path / "sweep" / name(f"seed={seed}")), key=lambda r: r["validation"]) for seed in range(3)]
    assert row[7] == f"{100 * sum(record['test'] for record in best) / 3:.2f}"
    assert [line.rsplit("(")[1] for line in outcome.stdout.splitlines() if line.startswith("[")] == [
        *("completed before)", "completed before)", "completed)"),
    ]


def test_failed_jobs_are_repeated_and_completed_ones_are_not(subfl: Subfl, trained: list[str], tmp_path: Path) -> None:
    assert subfl("partition.clients=3,5000").code == 1
    trained.clear()
    outcome = subfl("partition.clients=3,5000", "seed=0")
    assert outcome.code == 1 and trained == []
    assert "1 job(s) of the sweep failed:\n  partition.clients=5000: partition.clients=5000 is more" in outcome.stderr
    assert re.search(r"1 completed.*\n.*1 failed", outcome.stdout)
    assert subfl("partition.clients=3,5000", "sweep.redo=none").code == 1
    summary = RunDirectory(tmp_path / "sweep" / name("partition.clients=5000")).summary()
    assert summary is not None and summary["status"] == "failed"


def test_redo_all_trains_again_beside_what_is_there(subfl: Subfl, trained: list[str], tmp_path: Path) -> None:
    subfl("seed=0,1")
    before = files(tmp_path / "sweep" / name("seed=0"))
    assert subfl("seed=0,1", "sweep.redo=all").code == 0
    assert trained[2:] == [f"{name('seed=0')}-2", f"{name('seed=1')}-2"]
    assert files(tmp_path / "sweep" / name("seed=0")) == before
    assert subfl("seed=0,1").code == 0 and len(trained) == 4


def test_jobs_that_compute_the_same_are_trained_once(subfl: Subfl, trained: list[str]) -> None:
    outcome = subfl("runtime.chunk=1,2")
    assert outcome.code == 0 and trained == [name()]
    assert "runtime.chunk=2: computes the same as runtime.chunk=1, and is trained once" in outcome.stderr


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("sweep.jobs=0",), "sweep.jobs: Input should be greater than or equal to 1"),
        (("sweep.redo=some",), "sweep.redo: Input should be 'failed', 'all' or 'none' (found 'some')"),
        (("sweep.job=2",), "sweep.job: there is no such setting"),
        (("sweep.jobs=2", "runtime=ray", "seed=0,1"), "sweep.jobs=2: runtime=ray spreads each job over the cores"),
        (("hydra.job.chdir=true",), "hydra.job.chdir: jobs stay in the folder from which subfl was called"),
    ],
)
def test_a_wrong_setting_of_the_sweep_is_one_sentence(
    overrides: tuple[str, ...], sentence: str, subfl: Subfl, trained: list[str]
) -> None:
    outcome = subfl(*overrides)
    assert outcome.code == 2 and trained == []
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith(f"subfl: {sentence}")


def test_a_crash_of_a_job_is_one_failed_job(subfl: Subfl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append_round(self: RunDirectory, record: dict[str, Any], append: Any = RunDirectory.append_round) -> None:
        if self.path.name == name("seed=0"):
            raise ZeroDivisionError("a bug")
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append_round", append_round)
        outcome = subfl("seed=0,1")
    assert outcome.code == 1 and "Traceback" in outcome.stderr
    assert "seed=0: ZeroDivisionError: a bug" in outcome.stderr
    assert subfl("seed=0,1").code == 0  # mended


def test_a_sweep_from_python(trained: list[str], tmp_path: Path) -> None:
    asked = [[*SMALL, f"seed={seed}"] for seed in (0, 1)]
    folders = run_sweep(asked, tmp_path / "sweep", show=False)
    assert folders == [tmp_path / "sweep" / name(f"seed={seed}") for seed in (0, 1)]
    assert run_sweep([*asked, asked[0]], tmp_path / "sweep", show=False) == [*folders, folders[0]] and len(trained) == 2
    with pytest.raises(SubflError, match=r"partition\.clients"):
        run_sweep([[*SMALL, "partition.clients=0"]], tmp_path / "sweep", show=False)


def test_a_killed_sweep_called_again_ends_as_an_unbroken_one(subfl: Subfl, tmp_path: Path) -> None:
    """Killed in the second of three jobs, whenever that is."""
    rounds = "federation.rounds=20"
    overrides = ("-m", *SMALL[:-1], rounds, "seed=0,1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    jobs = [name(rounds, f"seed={seed}") for seed in range(3)]
    process = start(overrides, tmp_path / "run", tmp_path)
    second = tmp_path / "sweep" / jobs[1] / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (second.exists() and second.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert RunDirectory(tmp_path / "sweep" / jobs[1]).summary() is None
    finished = {job: files(tmp_path / "sweep" / job) for job in jobs[:1]}
    outcome = subfl(rounds, "seed=0,1,2")
    assert outcome.code == 0 and "starts again, because it has no checkpoint" in outcome.stderr
    assert {job: files(tmp_path / "sweep" / job) for job in jobs[:1]} == finished
    unbroken = run_sweep([[*SMALL, rounds, f"seed={seed}"] for seed in range(3)], tmp_path / "unbroken", show=False)
    assert [numbers(tmp_path / "sweep" / job) for job in jobs] == [numbers(folder) for folder in unbroken]
