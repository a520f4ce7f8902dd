"""The outcome of small inputs as people have them, where they are at hand, through the commands that they are for."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

from subfl_flower.cli import main

CASES = Path(os.environ.get("SUBFL_TEST_CASES", Path(__file__).parents[2] / ".." / "shared" / "cases"))

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"there are no cases in {CASES} (SUBFL_TEST_CASES)")

SMALL = ("method=local", "model.hidden=8", "federation.rounds=2", "record.checkpoint_every=1")
RECOMMENDER = ("method=fedgnn", "model.dim=4", "federation.rounds=2", "record.checkpoint_every=1")


def subfl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def copied(case: str, folder: Path) -> Path:
    """A case's files in a folder, in the place of those with the same names."""
    folder.mkdir(exist_ok=True)
    for path in (CASES / case).iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


def trained(data: str, path: Path, run: Path, *more: str) -> Path:
    assert subfl(*more, f"dataset={data}", f"dataset.path={path}", f"hydra.run.dir={run}") == 0
    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_on_a_graph_that_changed_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = copied("site_ids", tmp_path / "data")
    run = trained("custom", data, tmp_path / "run", *SMALL, "partition=whole")
    copied("changed_graph", data)
    assert subfl(f"resume={run}", "federation.rounds=3") == 2
    assert "nodes.csv changed since the run" in capsys.readouterr().err
    assert subfl("predict", str(run), "--out", str(tmp_path / "p.csv")) == 2
    assert "nodes.csv" in capsys.readouterr().err and not (tmp_path / "p.csv").exists()


def test_ratings_of_which_an_item_was_renamed_are_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = copied("r_strings", tmp_path / "data")
    run = trained("custom_ratings", data / "ratings.csv", tmp_path / "run", *RECOMMENDER)
    capsys.readouterr()
    assert subfl("recommend", str(run), "client=3") == 0
    by_number = capsys.readouterr().out
    assert "user user-12 (client 3)" in by_number and "film-" in by_number
    assert subfl("recommend", str(run), "user=user-12") == 0
    assert capsys.readouterr().out == by_number
    copied("renamed_item", data)
    for command in (("recommend", str(run), "client=3"), (f"resume={run}", "federation.rounds=3")):
        assert subfl(*command) == 2
        said = capsys.readouterr().err
        assert "ratings.csv" in said and "since the run" in said


def test_classes_and_nodes_have_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("custom", CASES / "site_ids", tmp_path / "run", *SMALL, "partition=whole")
    model = str(run / "clients" / "0000.safetensors")
    assert subfl("predict", model, str(CASES / "predict_other_classes")) == 2
    assert "class zed is none of the model's classes (died, home, transferred)" in capsys.readouterr().err
    arguments = (
        "dataset=custom",
        f"dataset.path={CASES / 'site_ids'}",
        "partition=whole",
        f"out={tmp_path / 'folders'}",
    )
    assert subfl("partition", *arguments) == 0
    assert subfl("predict", model, str(tmp_path / "folders" / "client-00"), "--out", str(tmp_path / "p.csv")) == 0
    predicted = rows(tmp_path / "p.csv")
    known = {row["id"]: row["label"] for row in rows(CASES / "site_ids" / "nodes.csv")}
    assert {row["node"]: row["label"] for row in predicted} == known and "patient-1027" in known
    assert {row["prediction"] for row in predicted} <= set(known.values())


def test_classes_of_a_tensor_are_those_of_its_owner(tmp_path: Path) -> None:
    run = trained("custom", CASES / "p_from1" / "graph.pt", tmp_path / "run", *SMALL, "partition=whole")
    assert subfl("predict", str(run), "--out", str(tmp_path / "p.csv")) == 0
    predicted = rows(tmp_path / "p.csv")
    assert {row["label"] for row in predicted} == {"1", "2", "3"} >= {row["prediction"] for row in predicted}
    assert {"p_1", "p_2", "p_3"} < set(predicted[0])


def test_features_of_edges_are_said_to_be_unused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained("custom", CASES / "p_weights" / "graph.pt", tmp_path / "run", *SMALL, "partition=whole")
    assert "not used: graph.pt: edge_attr [229, 3]" in capsys.readouterr().err


def test_users_and_items_alone_train_rankings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = CASES / "r_noratings" / "ratings.csv"
    ranking = ("method=fedavg", "task=ranking", "federation.rounds=2", "model.dim=4")
    trained("custom_ratings", data, tmp_path / "run", *ranking)
    assert (
        subfl(*RECOMMENDER, "dataset=custom_ratings", f"dataset.path={data}", f"hydra.run.dir={tmp_path / 'no'}") == 2
    )
    assert "task=ranking" in capsys.readouterr().err
