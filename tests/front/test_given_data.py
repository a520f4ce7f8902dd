"""Data in memory are treated as the files that hold the same: equal numbers, equal words, a fingerprint in the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from given_graphs import NODES, PEOPLE, model_bytes, numbers, people, ratings, ring, written
from torch_geometric.data import Data, HeteroData

from subfl_flower import SubflError, load_run, run
from subfl_flower.data.in_memory import path_in_memory, tables_in_memory
from subfl_flower.front.given_data import given_data
from subfl_flower.runs.directory import RunDirectory


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def facts(result: Any) -> dict[str, Any]:
    """Facts on the data, the content of data.json, but for names of sources."""
    found = json.loads((result.path / "data.json").read_text())
    del found["fingerprints"]["files"], found["sources"]
    found["dropped"] = [line.partition(": ")[2] or line for line in found["dropped"]]
    return found


def masks() -> dict[str, torch.Tensor]:
    places = torch.arange(NODES) % 4
    return {"train_mask": places < 2, "val_mask": places == 2, "test_mask": places == 3}


GRAPHS: dict[str, Data] = {
    "plain": ring(),
    "a duplicate edge and a loop": ring(
        edge_index=torch.cat([ring().edge_index, torch.tensor([[0, 5], [1, 5]])], dim=1)
    ),
    "masks": ring(**masks()),
    "weights": ring(edge_weight=torch.linspace(0.5, 2, 2 * NODES)),
    "unlabelled": ring(y=torch.where(torch.arange(NODES) % 6 == 0, -1, ring().y)),
    "sparse": ring(x=(ring().x * (ring().x > 1.8)).to_sparse()),
    "half precision": ring(x=ring().x.half()),
    "more attributes": ring(note="spring", scores=torch.ones(NODES)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_in_memory_gives_the_numbers_of_its_file(here: Path, name: str) -> None:
    asked: dict[str, Any] = {"method": "fedavg", "clients": 2, "rounds": 2, "overrides": {"model": {"hidden": 8}}}
    in_memory = run(dataset=GRAPHS[name], **asked)
    asked["overrides"] = {"model": {"hidden": 8}, "dataset": {"path": written(GRAPHS[name], here / "graph.pt")}}
    of_file = run(dataset="custom", **asked)
    assert numbers(in_memory.path) == numbers(of_file.path)
    assert model_bytes(in_memory.path) == model_bytes(of_file.path)
    assert facts(in_memory) == facts(of_file)


def test_tables_of_a_graph_in_memory_give_the_numbers_of_their_files(here: Path) -> None:
    nodes, edges = people()
    in_memory = run("fedavg", {"edges": edges, "nodes": nodes}, clients=2, rounds=2, overrides=PEOPLE)
    (here / "tables").mkdir()
    nodes.to_csv(here / "tables" / "nodes.csv", index=False)
    edges.to_csv(here / "tables" / "edges.csv", index=False)
    overrides = {"dataset": {**PEOPLE["dataset"], "path": here / "tables"}}
    of_files = run("fedavg", "custom", clients=2, rounds=2, overrides=overrides)
    assert numbers(in_memory.path) == numbers(of_files.path)
    assert facts(in_memory) == facts(of_files)
    assert set(in_memory.predict().node) == set(nodes.id)


def test_ratings_in_memory_give_the_numbers_of_their_file(here: Path) -> None:
    table, items = ratings(), pd.DataFrame({"item": range(100, 120), "genre": ["war", "crime"] * 10})
    asked: dict[str, Any] = {"method": "fedgnn", "rounds": 2}
    in_memory = run(dataset=table, **asked, overrides={"dataset": {"items": items}})
    table.to_csv(here / "ratings.csv", index=False)
    items.to_csv(here / "items.csv", index=False)
    of_files = run(
        dataset="custom_ratings", **asked, overrides={"dataset": {"path": "ratings.csv", "items": "items.csv"}}
    )
    assert numbers(in_memory.path) == numbers(of_files.path)
    assert facts(in_memory) == facts(of_files)
    assert in_memory.config["dataset"]["path"].startswith("memory:DataFrame-")


def test_paths_of_files_are_data_too(here: Path) -> None:
    nodes, edges = people()
    for folder, tables in (
        ("wards", {"nodes": nodes, "edges": edges}),
        ("split", {"train": ratings(), "test": ratings()}),
    ):
        (here / folder).mkdir()
        for name, table in tables.items():
            table.to_csv(here / folder / f"{name}.csv", index=False)
    ratings().to_csv(here / "ratings.csv", index=False)
    graph = run("fedavg", written(ring(), here / "my graph.pt"), clients=2, rounds=1)
    assert graph.config["dataset"]["path"] == str(here / "my graph.pt")
    assert numbers(graph.path) == numbers(run("fedavg", ring(), clients=2, rounds=1).path)
    assert run("fedavg", "./wards", clients=2, rounds=1, overrides=PEOPLE).config["dataset"]["name"] == "custom"
    assert run("fedgnn", "ratings.csv", rounds=1).config["dataset"]["name"] == "custom_ratings"
    with pytest.raises(
        SubflError, match=r"dataset=custom: nowhere\.pt does not exist|dataset=custom: .*/nowhere.pt does"
    ):
        run("fedavg", "nowhere.pt")
    with pytest.raises(SubflError, match="split"):
        run("fedgnn", here / "split", rounds=1, overrides=["dataset.split=nonsense"])


def test_a_given_split_of_ratings_is_a_dict_of_tables(here: Path) -> None:
    table = ratings()
    test = table.groupby("userId").head(2)
    result = run("fedgnn", {"test": test, "train": table.drop(test.index)}, rounds=1)
    found = json.loads((result.path / "data.json").read_text())
    assert (found["split"], found["test"]) == ("given", 24)


WRONG: dict[str, tuple[Data, str]] = {
    "a gap": (ring(x=torch.where(torch.eye(NODES)[:, :5] > 0, float("nan"), ring().x)), "5 feature values are NaN"),
    "a label that is no class": (ring(y=ring().y + 0.5), "y is not a class at node 0 (0.5)"),
    "labels that may mean none": (ring(y=2 * ring().y - 1), "the labels are -1 and 1"),
    "an edge to nowhere": (ring(edge_index=ring().edge_index + 1), "edges name a node outside 0..47"),
    "features of one dimension": (ring(x=torch.ones(NODES)), "x has the shape [48]; expected [nodes, features]"),
    "no features": (Data(edge_index=ring().edge_index, y=ring().y), "the nodes have no features"),
    "no labels": (Data(x=ring().x, edge_index=ring().edge_index), "has no labels"),
    "weights of another number": (ring(edge_weight=torch.ones(3)), "edge_weight has the shape [3]"),
    "an array": (ring(x=ring().x.numpy()), "x is a ndarray; make a tensor of it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_graph_is_refused_in_the_words_for_files(here: Path, name: str) -> None:
    data, words = WRONG[name]
    with pytest.raises(SubflError) as in_memory:
        run("fedavg", data, clients=2, run_dir="refused")
    if name != "an array":  # a file with one cannot be loaded at all
        with pytest.raises(SubflError) as of_file:
            run("fedavg", "custom", clients=2, overrides={"dataset": {"path": written(data, here / "graph.pt")}})
        place = str(given_data(data, "dataset").path)  # type: ignore[union-attr]
        assert str(in_memory.value).replace(place, str(here / "graph.pt")) == str(of_file.value)
    assert words in str(in_memory.value)
    assert not (here / "refused").exists() and not (here / "outputs").exists()


def test_a_wrong_table_is_refused_in_the_words_for_files(here: Path) -> None:
    nodes, edges = people()
    with pytest.raises(
        SubflError, match=r"^memory:nodes\+edges-\w{16}/edges: 1 x unknown target, first in row 3 \(q\)"
    ):
        run(
            "fedavg",
            {"nodes": nodes, "edges": edges.replace({"target": {edges.target[2]: "q"}}).head(3)},
            overrides=PEOPLE,
        )
    with pytest.raises(
        SubflError, match=r"/nodes: 5 x row with a missing feature .* 48 x value that is no number \(column ward\)"
    ):
        run("fedavg", {"nodes": nodes, "edges": edges})
    with pytest.raises(SubflError, match=r"^memory:DataFrame-\w{16}: the column user is missing"):
        run("fedgnn", ratings().rename(columns={"userId": "who"}))
    with pytest.raises(SubflError, match=r"dataset\.header is for files without names of columns"):
        run("fedgnn", ratings(), overrides={"dataset": {"header": ["user", "item", "rating"]}})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (HeteroData(), "dataset: HeteroData is not read; a graph of one type is needed"),
        (ratings().rating, "dataset: Series is not read; give a DataFrame"),
        ({"nodes": ratings()}, "dataset: the tables are called nodes; must be"),
        ({"nodes": ratings(), "edges": 3}, "dataset: edges is a int; a pandas DataFrame is needed"),
        (ring(x=torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])), "dataset: Data holds a tensor"),
    ],
)
def test_other_objects_are_refused_with_advice(here: Path, value: Any, sentence: str) -> None:
    with pytest.raises(SubflError) as error:
        run("fedavg", value)
    assert str(error.value).startswith(sentence)


def test_the_fingerprint_is_of_the_content_alone() -> None:
    def place(data: Any) -> str:
        return str(given_data(data, "dataset").path)  # type: ignore[union-attr]

    assert place(ring()) == place(ring().clone()) != place(ring(x=ring().x + 1e-6))
    assert place(ring()) != place(ring(note="spring")) != place(ring(y=ring().y.to(torch.int32)))
    assert place(ratings()) == place(ratings().copy()) != place(ratings().assign(rating=3))
    assert place(ratings()) == place(ratings().iloc[::-1].iloc[::-1]) != place(ratings().iloc[::-1])
    nodes, edges = people()
    assert place({"nodes": nodes, "edges": edges}) == place({"edges": edges, "nodes": nodes})
    assert place({"nodes": nodes, "edges": edges}) != place({"nodes": nodes, "edges": edges.iloc[1:]})


def test_a_path_names_its_tables() -> None:
    folder = path_in_memory(["nodes", "edges"], "0123456789abcdef0123")
    assert str(folder) == "memory:nodes+edges-0123456789abcdef"
    assert tables_in_memory(folder) == {name: folder / name for name in ("nodes", "edges")}
    assert tables_in_memory(path_in_memory(["Data"], "0" * 16)) == {}


def test_the_callers_data_stay_as_they_were(here: Path) -> None:
    data, table = ring(x=ring().x.requires_grad_()), ratings()
    before = {key: value.clone() for key, value in data.to_dict().items()}
    kept = table.copy()
    run("fedavg", data, clients=2, rounds=1)
    run("fedgnn", table, rounds=1)
    assert all(torch.equal(data[key], value) for key, value in before.items()) and data.x.requires_grad
    pd.testing.assert_frame_equal(table, kept)


def test_a_run_on_data_in_memory_says_so_and_asks_for_them_when_they_are_gone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBFL_CACHE", str(here / "cache"))
    result = run("fedavg", ring(), clients=2, rounds=1, run_dir="kept")
    place = given_data(ring(), "dataset").path  # type: ignore[union-attr]
    assert RunDirectory(result.path).config()["dataset"]["path"] == str(place)
    files = json.loads((result.path / "data.json").read_text())["fingerprints"]["files"]
    assert files == {str(place): str(place)[-16:]}
    own = load_run("kept").predict()  # of the prepared copy
    shutil.rmtree(here / "cache")
    with pytest.raises(SubflError, match=f"^{place}: these data were in the memory of a program") as error:
        load_run("kept").predict()
    assert "load_run(RUN, data=...)" in str(error.value)
    with pytest.raises(SubflError, match=f"^data: they are not those of .*kept: .*, and the run's were {place}"):
        load_run("kept", data=ring(x=ring().x + 1))
    pd.testing.assert_frame_equal(load_run("kept", data=ring()).predict(), own)
    with pytest.raises(SubflError, match="were not in memory; leave them out"):
        load_run(run("fedavg", "digits", clients=2, rounds=1, overrides=["model.hidden=8"]).path, data=ring())


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from given_graphs import ring
from subfl_flower import run

if __name__ == "__main__":
    run("fedavg", ring(), clients=3, rounds=2, runtime="ray", run_dir=sys.argv[2],
        overrides={"runtime": {"nodes": 2, "total_cpus": 2}})
"""


@pytest.mark.slow
def test_workers_of_ray_take_data_in_memory_from_the_prepared_cache(here: Path) -> None:
    inline = run("fedavg", ring(), clients=3, rounds=2)
    (here / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py", str(Path(__file__).parent), str(here / "ray")],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    values = [
        np.array([record["clients"]["test"] for record in RunDirectory(path).rounds()])
        for path in (inline.path, here / "ray")
    ]
    assert np.array_equal(*values)
