"""Runs whose data, caches and run directories lie in folders with characters that mean something in an override."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from path_names import ALL_IN_ONE, AWKWARD_NAMES, ring_of_people
from run_outcomes import Outcome, command

from subfl_flower.cli import main
from subfl_flower.data.folders.subgraph_folder import ClientFolder
from subfl_flower.runs.directory import RunDirectory

SMALL = (
    *("method=fedavg", "dataset=custom", "partition=random", "partition.clients=2", "model.hidden=4"),
    *("federation.rounds=1", "dataset.train_fraction=0.5", "record.client_models=false"),
)


def subfl(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def settings(run: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = RunDirectory(run).config()
    return found


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_data_and_runs_may_lie_in_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ring_of_people(tmp_path / name)
    path = tmp_path / name if name.startswith("~") else name  # ~b alone is the home of a user b
    paths = (f"dataset.path={path}", f"data.cache={tmp_path}/{name}/cache", f"hydra.run.dir={name}/run")
    assert subfl(monkeypatch, *SMALL, *paths) == 0
    outcome = Outcome(tmp_path / name / "run")
    assert (outcome.summary["status"], outcome.summary["clients"]) == ("completed", 2)
    assert settings(outcome.directory)["dataset"]["path"] == str(tmp_path / path)
    assert any((tmp_path / name / "cache").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_the_real_command_takes_them_and_they_may_change_when_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ring_of_people(tmp_path / ALL_IN_ONE)
    run = place / "run"
    outcome = command(
        *SMALL, f"dataset.path={place}", f"data.cache={place}/cache", "record.checkpoint_every=1",
        directory=run, cwd=tmp_path,
    )  # fmt: skip
    assert outcome.code == 0 and f"run directory: {run}" in outcome.stdout, outcome.stderr
    changes = (f"data.cache={place}/other", f"data.root={ALL_IN_ONE}: c", "federation.rounds=3")
    assert not (place / "other").exists()
    assert subfl(monkeypatch, f"resume={run}", *changes) == 0
    assert [record["round"] for record in outcome.rounds] == [1, 2, 3] and any((place / "other").iterdir())


def test_a_sweep_takes_them_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a=b (c", "12", "it's {d"]
    for name in (*names, "e,f"):
        ring_of_people(tmp_path / name)
    paths = f"dataset.path={', '.join(names)},'e,f'"
    numbered = "hydra.sweep.subdir=${hydra.job.num}"
    assert subfl(monkeypatch, "-m", *SMALL, paths, "hydra.sweep.dir=s=[1,2", numbered, "partition.clients=2,3") == 0
    jobs = [settings(tmp_path / "s=[1,2" / str(job)) for job in range(8)]
    assert [(job["dataset"]["path"], job["partition"]["clients"]) for job in jobs] == [
        (str(tmp_path / name), clients) for clients in (2, 3) for name in (*names, "e,f")
    ]


def test_an_empty_path_of_a_sweep_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert subfl(monkeypatch, "-m", *SMALL, "dataset.path=a,,b") == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("subfl: dataset.path: the value a,,b cannot be read; put ")


@pytest.mark.parametrize("name", ["a=b", "1e5", ALL_IN_ONE])
def test_partition_writes_folders_of_data_in_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ring_of_people(tmp_path / name)
    overrides = (*SMALL[1:4], "dataset.train_fraction=0.5", f"dataset.nodes={name}/nodes.csv")
    arguments = (*overrides, f"dataset.edges={name}/edges.csv", f"data.cache={name}/cache", f"out={name}/out")
    assert subfl(monkeypatch, "partition", *arguments) == 0
    folders = sorted((tmp_path / name / "out").glob("client-*"))
    assert [ClientFolder.open(folder).description.num_nodes for folder in folders] == [12, 12]
