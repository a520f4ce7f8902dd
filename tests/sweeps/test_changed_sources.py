"""A run of files or code that have changed since is trained again, and the old one is left as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from small_runs import files, numbers

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import build_rows
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.sources import changed_sources, sources_of
from subfl_flower.sweeps.engine import run_sweep
from subfl_flower.sweeps.job import train_here, train_job

STRATEGY = """
from subfl_flower.strategies.subgraphs.fedavg import FedAvg


class Mine(FedAvg):
    factor = 1.0
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Overrides of a run on tables, by a method and a division among clients of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ids = [f"n{number}" for number in range(24)]
    rows = [f"{name},{'ab'[number % 2]},{number % 5}" for number, name in enumerate(ids)]
    Path("nodes.csv").write_text("\n".join(["id,label,size", *rows]))
    Path("edges.csv").write_text("\n".join(["source,target", *(f"n{k},n{(k + 2) % 24}" for k in range(24))]))
    np.savez("mine.npz", ids=ids, split=[0, 1, 2] * 8, client_0=ids[:12], client_1=ids[12:])
    Path("mine_method.py").write_text(STRATEGY)
    yield [
        *("method=fedavg", "method.strategy=mine_method.Mine", "dataset=custom", "dataset.path=."),
        *("partition=given", "partition.file=mine.npz", "model.hidden=4", "federation.rounds=1"),
    ]
    sys.modules.pop("mine_method", None)


def change(name: str) -> None:
    """Change what a file says, but not a name that a configuration has."""
    if name == "mine.npz":
        with np.load(name) as given:
            np.savez(name, **{**given, "split": [1, 0, 2] * 8})
    else:
        text = Path(name).read_text()
        Path(name).write_text(text.replace("n3,b,3", "n3,b,4").replace("factor = 1.0", "factor = 2.0"))


def test_the_files_of_a_configuration_are_those_of_the_user(asked: list[str]) -> None:
    config, _ = composed_config(asked)
    content = {name: sha256(Path(name).read_bytes()).hexdigest() for name in ("nodes.csv", "edges.csv", "mine.npz")}
    content["partition.file"] = content.pop("mine.npz")
    code = sha256(STRATEGY.encode()).hexdigest()
    assert sources_of(config) == content | {"mine_method.Mine": code}
    for public in ("dataset=cora", "dataset=digits", "dataset=ml100k"):  # nothing is downloaded
        assert sources_of(composed_config([public, "method=fedgnn"] if "ml" in public else [public])[0]) == {}


def test_a_network_of_the_user_counts_and_an_installed_one_does_not(asked: list[str]) -> None:
    Path("mine_method.py").write_text(
        f"{STRATEGY}\n\nfrom torch_geometric.nn import GCN\n\n\nclass Net(GCN):\n    pass\n"
    )
    for network, counted in (("mine_method.Net", True), ("torch_geometric.nn.GCN", False)):
        own = ["model=module", f"model._target_={network}", "+model.hidden_channels=4", "+model.num_layers=2"]
        rest = [word for word in asked if not word.startswith("model.")]
        found = sources_of(composed_config([*rest, *own])[0])
        assert ("mine_method.Net" in found) == counted and not any("torch" in name for name in found)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nodes.csv", "nodes.csv"), ("mine.npz", "partition.file"), ("mine_method.py", "mine_method.Mine")],
)
def test_a_sweep_trains_again_beside_the_old_run(
    name: str, said: str, asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (first,) = run_sweep([asked], tmp_path / "sweep", show=False)
    assert run_sweep([asked], tmp_path / "sweep", show=False) == [first]
    before = files(first)
    change(name)
    capfd.readouterr()
    (second,) = run_sweep([asked], tmp_path / "sweep", show=False)
    assert second.name == f"{first.name}-2" and files(first) == before
    assert f"{first}: was completed before {said} changed, so that it is trained again" in capfd.readouterr().err
    assert run_sweep([asked], tmp_path / "sweep", show=False) == [second]
    (row,) = build_rows(load_runs([tmp_path / "sweep"]))
    assert [run.path for run in row.counted] == [second.relative_to(tmp_path)]
    assert (numbers(first) != numbers(second)) == (name != "mine_method.py")


def test_redo_none_keeps_the_old_run_and_says_so(
    asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (first,) = run_sweep([asked], tmp_path / "sweep", show=False)
    change("nodes.csv")
    assert run_sweep([asked], tmp_path / "sweep", redo="none", show=False) == [first]
    assert "was completed before nodes.csv changed, and is kept" in capfd.readouterr().err


def test_a_named_folder_refuses_the_new_data_and_a_broken_run_starts_again(
    asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, run = composed_config([*asked, "record.checkpoint_every=1"])[0], tmp_path / "run"
    train_here(config, run)
    change("mine_method.py")
    with pytest.raises(SubflError, match=r"already holds a run, completed before mine_method\.Mine changed; choose"):
        train_here(config, run)
    (run / "summary.json").unlink()
    assert train_job(config, run).status == "completed"
    assert f"{run}: starts again, because mine_method.Mine changed" in capfd.readouterr().err
    assert changed_sources(config, RunDirectory(run).data()) == []


def test_an_older_run_is_compared_by_the_files_that_it_recorded(asked: list[str], tmp_path: Path) -> None:
    config, run = composed_config(asked)[0], tmp_path / "run"
    train_here(config, run)
    facts = json.loads((run / "data.json").read_text())
    del facts["sources"]
    change("mine_method.py")
    assert changed_sources(config, facts) == []
    change("nodes.csv")
    assert changed_sources(config, facts) == ["nodes.csv"]
    assert changed_sources(config, None) == []
    Path("nodes.csv").unlink()
    assert changed_sources(config, facts) == []
