"""A data set, a partition, a task and a logger of somebody else's, in every runtime of one machine."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from own_classes import CHOSEN, write_modules
from run_outcomes import Outcome, command, subfl

RUN = ("method=fedavg", "federation.rounds=2")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with packages that are called like this project's."""
    folder = write_modules(tmp_path_factory.mktemp("user"))
    for name in ("clients", "strategies", "torch_geometric"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError('this is not the package that was meant')\n")
    return folder


@pytest.fixture(scope="module")
def inline(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return command(*CHOSEN, *RUN, directory=tmp_path_factory.mktemp("inline") / "run", cwd=modules, fresh=True)


def table(outcome: Outcome) -> list[list[float]]:
    with (outcome.directory / "figures.csv").open(newline="") as file:
        return [[float(value) for value in row] for row in csv.reader(file)]


def test_all_four_work_in_one_run(inline: Outcome) -> None:
    assert inline.code == 0, inline.stderr
    assert "fedavg on ringofcliques" in inline.stdout
    summary = inline.summary
    assert summary["metric"] == "rmse" and summary["status"] == "completed"
    assert [record["clients"]["ids"] for record in inline.rounds] == [[0, 1], [0, 1]]
    assert table(inline) == [[record["round"], record["test"]] for record in inline.rounds]
    assert inline.rounds[1]["test"] < inline.rounds[0]["test"]  # an error that falls is one that is learnt


def test_a_resumed_run_finds_them_again(modules: Path, tmp_path: Path) -> None:
    every = ("record.checkpoint_every=1",)
    first = command(*CHOSEN, *RUN, *every, directory=tmp_path / "run", cwd=modules)
    assert first.code == 0, first.stderr
    again = subfl(f"resume={tmp_path / 'run'}", "federation.rounds=3", cwd=modules)
    assert again.code == 0, again.stderr
    assert [row[0] for row in table(first)] == [1, 2, 3]


def test_another_folder_is_named_by_code(modules: Path, tmp_path: Path) -> None:
    done = subfl("--code", str(modules), "inspect", *CHOSEN[:2], "dataset.cliques=5", "dataset.size=4", cwd=tmp_path)
    assert done.code == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.count("│") == 3]
    facts = {row[1].strip(): row[2].strip() for row in rows}
    assert (facts["nodes"], facts["edges"]) == ("20", "35")  # 5 * 4 nodes; 5 * 6 edges inside, 5 between


def test_a_sweep_takes_choices_of_the_users_folder(modules: Path, tmp_path: Path) -> None:
    folder = tmp_path / "user"
    shutil.copytree(modules, folder)
    for group, name, content in (
        ("dataset", "ring", "_target_: rings.RingOfCliques\ncliques: 5\nprotocol: {rounds: 1, local_epochs: 1}\n"),
        ("method", "mine", "defaults: [fedavg, _self_]\nname: mine\n"),
        ("method", "local", "defaults: [fedavg, _self_]\nname: local\n"),
    ):
        (folder / "conf" / group).mkdir(parents=True, exist_ok=True)
        (folder / "conf" / group / f"{name}.yaml").write_text(content)
    asked = ["dataset=ring", "partition=random", "partition.clients=2", "hydra.sweep.dir=sweep"]
    done = subfl("-m", *asked, "method=mine", "dataset.cliques=4,5", cwd=folder)
    assert done.code == 0, done.stderr
    jobs = list((folder / "sweep").glob("mine-ringofcliques-seed0-*"))
    assert [Outcome(job).summary["method"] for job in jobs] == ["mine", "mine"]
    shadowing = subfl(*asked, "method=local", cwd=folder)
    said = f"subfl: {folder / 'conf/method/local.yaml'}: method=local is built in; rename the file to choose it\n"
    assert (shadowing.code, shadowing.stderr) == (2, said)


@pytest.mark.slow
def test_ray_gives_the_same_numbers(modules: Path, inline: Outcome, tmp_path: Path) -> None:
    ray = ("runtime=ray", "runtime.total_cpus=2")
    outcome = command(*CHOSEN, *RUN, *ray, directory=tmp_path / "run", cwd=modules, timeout=280)
    assert outcome.code == 0, outcome.stderr
    np.testing.assert_allclose(table(outcome), table(inline), rtol=1e-5)


@pytest.mark.slow
def test_flwr_run_gives_the_same_numbers(modules: Path, inline: Outcome, tmp_path: Path) -> None:
    options = ("--supernodes", "2", "--home", str(tmp_path / "home"))
    outcome = command(
        "launch", *CHOSEN, *RUN, *options, directory=tmp_path / "run", cwd=modules, timeout=280, fresh=True
    )
    assert outcome.code == 0, outcome.stderr
    np.testing.assert_allclose(table(outcome), table(inline), rtol=1e-5)


def test_the_configuration_does_not_import_the_runtime() -> None:
    code = "import sys, subfl_flower.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    imported = done.stdout.split()
    assert "subfl_flower.data.datasets" in imported
    assert not [name for name in imported if name.startswith("subfl_flower.runtime")]
    assert not {"flwr", "hydra", "ray"} & set(imported)
