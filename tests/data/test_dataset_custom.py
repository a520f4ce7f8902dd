from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch_geometric.data import Data

from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions import RandomPartition
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import SubflError

NODES = "id,label,height,width\na,cat,1,2\nb,dog,3,4\n007,,5,6\nd,cat,7,8\n"
EDGES = "source,target,weight\na,b,1\nb,a,1\nb,007,1\nd,d,1\n"


def load(**fields: Any) -> Graph:
    return CustomDataset(**fields).load(Path("/nonexistent"))


def tables(directory: Path, nodes: str = NODES, edges: str = EDGES) -> Path:
    (directory / "nodes.csv").write_text(nodes)
    (directory / "edges.csv").write_text(edges)
    return directory


def check_small_graph(graph: Graph) -> None:
    np.testing.assert_array_equal(graph.features, [[1, 2], [3, 4], [5, 6], [7, 8]])
    np.testing.assert_array_equal(graph.edge_index, [[0, 1, 1, 2], [1, 0, 2, 1]])
    np.testing.assert_array_equal(graph.labels, [0, 1, -1, 0])
    assert graph.num_classes == 2


def test_csv_directory(tmp_path: Path) -> None:
    check_small_graph(load(path=tables(tmp_path)))


def test_parquet_and_csv_named_one_by_one(tmp_path: Path) -> None:
    nodes = pd.DataFrame({"id": [10, 11, 7, 13], "label": [5.0, 9.0, None, 5.0], "h": [1, 3, 5, 7], "w": [2, 4, 6, 8]})
    nodes.to_parquet(tmp_path / "people.parquet")
    (tmp_path / "links.csv").write_text("source,target\n10,11\n11,7\n")
    check_small_graph(load(nodes=tmp_path / "people.parquet", edges=tmp_path / "links.csv"))


def test_pyg_file(tmp_path: Path) -> None:
    data = Data(
        x=torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]]),
        edge_index=torch.tensor([[0, 1, 1, 3], [1, 0, 2, 3]]),
        y=torch.tensor([[5], [9], [-1], [5]]),
    )
    torch.save(data, tmp_path / "mine.pt")
    check_small_graph(load(path=tmp_path / "mine.pt"))
    data.x = data.x.float().to_sparse_csr()
    data.y = None
    torch.save(data, tmp_path / "sparse.pt")
    graph = load(path=tmp_path / "sparse.pt")
    np.testing.assert_array_equal(graph.features, [[1, 2], [3, 4], [5, 6], [7, 8]])
    assert graph.labels is None and graph.num_classes == 0


class Harmful:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    data = Data(x=torch.ones(2, 2), edge_index=torch.zeros(2, 0, dtype=torch.long), note=Harmful(witness))
    torch.save(data, tmp_path / "harmful.pt")
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Harmful(witness)))
    for name in ("harmful.pt", "pickled.pt"):
        with pytest.raises(SubflError, match=f"{name} cannot be loaded as a PyG Data of plain tensors"):
            load(path=tmp_path / name)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": torch.ones(2, 2)}, "holds a dict; expected a torch_geometric.data.Data"),
        (Data(x=torch.ones(2, 2)), r"needs edge_index; it holds \['x'\]"),
        (Data(x=torch.ones(2), edge_index=torch.zeros(2, 0).long()), r"x has the shape \[2\]"),
        (Data(x=torch.ones(2, 2), edge_index=torch.zeros(2, 1)), "edge_index is torch.float32"),
        (Data(x=torch.ones(2, 2), edge_index=torch.tensor([[0], [2]])), r"outside 0\.\.1"),
        (
            Data(x=torch.ones(2, 2), edge_index=torch.zeros(2, 0).long(), y=torch.ones(2, 3)),
            r"y has the shape \[2, 3\]",
        ),
        (
            Data(x=torch.ones(2, 2), edge_index=torch.zeros(2, 0).long(), y=torch.tensor([1, 0.5])),
            r"node 1 \(0\.5\)",
        ),
        (
            Data(x=torch.ones(2, 2) * torch.nan, edge_index=torch.zeros(2, 0).long()),
            "4 feature values are NaN",
        ),
    ],
)
def test_pyg_files_that_are_no_graph(tmp_path: Path, content: Any, sentence: str) -> None:
    torch.save(content, tmp_path / "mine.pt")
    with pytest.raises(SubflError, match=sentence):
        load(path=tmp_path / "mine.pt")


@pytest.mark.parametrize(
    ("nodes", "edges", "sentence"),
    [
        (
            NODES,
            "source,target\na,b\na,x\ny,a\nx,a\n",
            r"edges.csv: 2 x unknown source, first in row 3 \(y\)",
        ),
        (NODES, "source,target\na,b\na,7\n", r"edges.csv: 1 x unknown target, first in row 2 \(7\)"),
        (NODES, "source,target\na,\n", "edges.csv: 1 x empty target, first in row 1"),
        (
            NODES,
            "from,to\na,b\n",
            "edges.csv: the column source and target is missing; its columns are from, to",
        ),
        (NODES.replace("id", "name"), EDGES, "nodes.csv: the column id is missing"),
        (NODES.replace("b,", "a,"), EDGES, "nodes.csv: 1 x repeated id, first in row 2"),
        (
            NODES.replace("3,4", "3,tall"),
            EDGES,
            r"nodes.csv: 1 x value that is no number \(column width\), first in row 2 \(tall\); for categories state",
        ),
        (
            NODES.replace("5,6", ",6").replace("7,8", "7,"),
            EDGES,
            r"1 x row with a missing feature \(column height\), first in row 3; .*; "
            r"1 x row with a missing feature \(column width\), first in row 4; .* dataset.features.impute=mean",
        ),
        (NODES.replace("7,8", "inf,8"), EDGES, r"1 x row with an infinite feature \(column height\), first in row 4"),
        ("id,label\na,1\n", "source,target\n", "the nodes have no features; dataset.features.from_structure=degree"),
        ("", EDGES, "nodes.csv cannot be read as a table: it is empty"),
    ],
)
def test_tables_that_are_no_graph(tmp_path: Path, nodes: str, edges: str, sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        load(path=tables(tmp_path, nodes, edges))


def test_missing_and_ambiguous_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"absent\.pt does not exist"):
        load(path=tmp_path / "absent.pt")
    with pytest.raises(SubflError, match=r"holds 0 of nodes\.csv and nodes\.parquet"):
        load(path=tmp_path)
    (tables(tmp_path) / "edges.parquet").write_bytes(b"")
    with pytest.raises(SubflError, match=r"holds 2 of edges\.csv and edges\.parquet \(edges\.csv, edges\.parquet\)"):
        load(path=tmp_path)
    with pytest.raises(SubflError, match=r"edges\.parquet cannot be read as parquet"):
        load(nodes=tmp_path / "nodes.csv", edges=tmp_path / "edges.parquet")
    (tmp_path / "nodes.xlsx").write_text(NODES)
    with pytest.raises(SubflError, match=r"nodes\.xlsx is no table; its name must end in \.csv, "):
        load(nodes=tmp_path / "nodes.xlsx", edges=tmp_path / "edges.csv")


@pytest.mark.parametrize("fields", [{}, {"nodes": "n.csv"}, {"path": "g.pt", "edges": "e.csv"}])
def test_one_source_must_be_given(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"give either dataset\.path .* or both dataset\.nodes"):
        CustomDataset(**fields)


def test_a_graph_without_labels_is_prepared_only_where_none_are_needed(tmp_path: Path) -> None:
    unlabelled = NODES.replace("cat", "").replace("dog", "")
    dataset = CustomDataset(path=tables(tmp_path, unlabelled))
    partition = RandomPartition(clients=2)
    with pytest.raises(SubflError, match="dataset=custom has no labels"):
        prepare(dataset, partition, tmp_path, tmp_path / "cache")
    prepared = prepare(dataset, partition, tmp_path, tmp_path / "cache", require_labels=False)
    assert prepared.num_classes == 0 and prepared.client(0).labels is None
    assert prepared.client(1).roles.tolist() == [-1, -1]
    with pytest.raises(SubflError, match="dataset=custom has no labels"):  # the cache entry is no way round
        prepare(dataset, partition, tmp_path, tmp_path / "cache")
