"""Sweeps: every combination once, reuse of what is there, means and deviations over seeds."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from given_graphs import model_bytes, numbers, ratings, ring
from run_outcomes import command

from subfl_flower import SubflError, SweepResult, load_run, run, sweep

SMALL: dict[str, Any] = {"clients": 2, "rounds": 2, "progress": False}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    folder = tmp_path_factory.mktemp("sweep") / "compared"
    return sweep(["local", "fedavg"], ring(), seed=range(3), overrides=["model.hidden=8"], folder=folder, **SMALL)


def test_every_combination_is_one_run_that_equals_the_single_one(compared: SweepResult, here: Path) -> None:
    found = [(one.config["method"]["name"], one.config["seed"]) for one in compared]
    assert found == [(method, seed) for method in ("local", "fedavg") for seed in range(3)]
    single = run("fedavg", ring(), seed=1, overrides=["model.hidden=8"], **SMALL)
    assert numbers(compared[4].path) == numbers(single.path)
    assert model_bytes(compared[4].path) == model_bytes(single.path)
    assert len(compared) == 6 and [one.path for one in compared[:2]] == [one.path for one in compared.runs[:2]]


def test_the_frame_has_the_lines_of_every_run(compared: SweepResult) -> None:
    expected = pd.concat([one.metrics for one in compared], ignore_index=True)
    pd.testing.assert_frame_equal(compared.metrics, expected)
    assert compared.metrics["run"].nunique() == 6


def test_the_table_is_of_means_and_deviations_over_seeds(compared: SweepResult) -> None:
    table = compared.table()
    assert table.method.tolist() == ["local", "fedavg"] and table.seeds.tolist() == [3, 3]
    for place, row in table.iterrows():
        tests = [one.summary["test_at_best_validation"] for one in compared[3 * place : 3 * place + 3]]
        assert row["mean"] == pytest.approx(statistics.mean(tests))
        assert row["std"] == pytest.approx(statistics.stdev(tests))
        assert row["text"] == f"{100 * statistics.mean(tests):.2f} ± {100 * statistics.stdev(tests):.2f}"
        sent = [one.summary["bytes_up"] for one in compared[3 * place : 3 * place + 3]]
        assert row["bytes_up"] == statistics.mean(sent)
    page = compared._repr_html_()
    assert page.count("<tr>") == 3 and "<script" not in page and table.text[0] in page
    assert repr(compared) == f"<SweepResult 6 runs, {compared.path}>"


def test_a_longer_list_trains_only_what_is_new(here: Path) -> None:
    first = sweep("fedavg", ring(), seed=[0, 1], folder="seeds", **SMALL)
    times = [(one.path / "metrics.jsonl").stat().st_mtime_ns for one in first]
    second = sweep("fedavg", ring(), seed=[0, 1, 2], folder="seeds", **SMALL)
    assert [one.path for one in second][:2] == [one.path for one in first]
    assert [(one.path / "metrics.jsonl").stat().st_mtime_ns for one in second][:2] == times
    assert second.path == here / "seeds" and len(list((here / "seeds").iterdir())) == 3


def test_commas_in_a_text_sweep_and_lists_in_a_dict_do_not(here: Path) -> None:
    swept = sweep("fedavg", ring(), overrides=["optimizer.lr=0.01,0.02", "partition.seed=range(0,2)"], **SMALL)
    found = [(one.config["optimizer"]["lr"], one.config["partition"]["seed"]) for one in swept]
    assert found == [(0.01, 0), (0.01, 1), (0.02, 0), (0.02, 1)]
    assert swept.path.parents[1] == here / "multirun"
    assert swept.table().settings.tolist() == ["optimizer.lr=0.01", "optimizer.lr=0.02"]  # of two splits each
    listed = sweep("fedavg", ring(), overrides={"dataset": {"unlabelled": [-1, 7]}}, **SMALL)
    assert len(listed) == 1 and listed[0].config["dataset"]["unlabelled"] == [-1, 7]


def test_an_experiment_gives_values_that_arguments_replace(here: Path) -> None:
    asked = {"clients": 2, "rounds": 1, "seed": 0, "overrides": ["+experiment=link_prediction", "model.hidden=8"]}
    stated = yaml.safe_load((Path(__file__).parents[2] / "conf/experiment/link_prediction.yaml").read_text())
    methods = stated["hydra"]["sweeper"]["params"]["method"].split(",")
    found = sweep(None, ring(), folder="some", progress=False, **asked)
    assert [one.config["method"]["name"] for one in found] == methods
    assert {(one.config["task"]["name"], one.config["seed"]) for one in found} == {("link_prediction", 0)}
    assert len(sweep("local", ring(), folder="some", progress=False, **asked)) == 1
    with pytest.raises(SubflError, match=r"\+experiment is a sweep of method, "):
        run(None, ring(), **asked)


def test_data_in_memory_reach_processes_side_by_side(here: Path) -> None:
    several = sweep("fedavg", [ring(), ring(x=-ring().x)], seed=[0, 1], jobs=2, folder="several", **SMALL)
    assert not several.failures
    one = sweep("fedavg", ring(x=-ring().x), seed=1, folder="one", **SMALL)
    assert numbers(several[3].path) == numbers(one[0].path) != numbers(several[1].path)


def test_a_command_and_a_sweep_share_a_folder(here: Path) -> None:
    asked = ("method=fedavg", "partition.clients=2", "federation.rounds=1", "model.hidden=8")
    done = command("-m", *asked, "seed=0,1", "hydra.sweep.dir=both", directory=here / "unused", cwd=here)
    assert done.code == 0, done.stderr
    found = sweep("fedavg", "digits", clients=2, rounds=1, seed=[0, 1], overrides=["model.hidden=8"], folder="both")
    assert len([path for path in (here / "both").iterdir() if path.is_dir()]) == 2
    assert [load_run(one.path).config["seed"] for one in found] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": ["fedavg", "fedpup"]}, "method=fedpup: there is no such choice"),
        ({"method": []}, "method: the list of values is empty"),
        ({"method": "fedavg", "clients": [2, 0]}, "partition.clients: Input should be greater than or equal to 1"),
        ({"method": ["fedavg", "fedgnn"]}, "dataset=custom holds a graph, and method=fedgnn is for ratings"),
        ({"method": "fedavg", "clients": [2, 999]}, "partition.clients=999 is more than the 48 nodes"),
        ({"method": "fedavg", "dataset": ratings(), "clients": None}, "model must be lightgcn with method=fedavg"),
        ({"method": "fedavg", "redo": "some"}, "redo: Input should be 'failed', 'all' or 'none' (found 'some')"),
        ({"method": "fedavg", "jobs": 0}, "jobs: Input should be greater than or equal to 1"),
        ({"method": "fedavg", "folder": ""}, "folder: must be the path of a folder (found '')"),
        ({"method": "fedavg", "folder": __file__}, f"{__file__} is not a folder; choose another folder (folder=...)"),
        ({"method": "fedavg", "folder": f"{__file__}/x"}, f"{__file__}/x cannot be made: "),
    ],
)
def test_nothing_is_trained_where_one_combination_is_wrong(
    here: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SubflError) as error:
        sweep(**{"dataset": ring(), "folder": "refused", **SMALL, **arguments})
    assert str(error.value).startswith(sentence)
    assert list(here.iterdir()) == []


def test_a_run_that_fails_does_not_end_the_sweep(here: Path) -> None:
    (here / "failing.py").write_text(FAILING)
    found = sweep("fedavg", ring(), overrides=["model=module", "model._target_=failing.Failing,torch_geometric.nn.GCN",
                                               "+model.num_layers=2", "+model.hidden_channels=4"], **SMALL)  # fmt: skip
    assert [one.summary["status"] for one in found] == ["failed", "completed"]
    assert list(found.failures) == [found[0].path.name]
    assert "out of order" in found.failures[found[0].path.name]
    assert ", 1 failed" in repr(found)


FAILING = """
from torch_geometric.nn import GCN


class Failing(GCN):
    def forward(self, x, edge_index):
        if self.training:
            raise RuntimeError("out of order")
        return super().forward(x, edge_index)
"""
