"""A user's own graph from file to what models read: masks, weights, features, names and fingerprints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from sklearn.preprocessing import StandardScaler
from torch_geometric.data import Data

from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.datasets.custom_settings import FeatureSettings, GraphColumns
from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions import GivenPartition, RandomPartition, WholePartition
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.data.prepared.partition_files import PreparedPartition
from subfl_flower.errors import SubflError

EDGES = "source,target\na,b\nb,c\nc,d\nd,e\ne,f\n"
NODES = "id,label,age,city,smoker\na,x,10,Rome,0\nb,y,20,,1\nc,x,30,Oslo,0\nd,y,,Rome,1\ne,x,50,Oslo,1\nf,,60,Bern,0\n"
CITIES = FeatureSettings(one_hot=("city",), impute="median")


def tables(folder: Path, nodes: str = NODES, edges: str = EDGES) -> Path:
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(edges)
    return folder


def saved(folder: Path, **attributes: Any) -> Path:
    data = Data(
        x=torch.arange(8.0).view(4, 2), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), y=torch.tensor([0, 1, 0, 1])
    )
    for name, value in attributes.items():
        data[name] = value
    torch.save(data, folder / "g.pt")
    return folder / "g.pt"


def prepared(folder: Path, dataset: CustomDataset, partition: Any = None) -> PreparedPartition:
    return prepare(dataset, partition or WholePartition(), folder, folder / "cache", require_labels=False)


def whole(folder: Path, dataset: CustomDataset) -> tuple[Graph, np.ndarray]:
    return prepared(folder, dataset).graph()


def dense(graph: Graph) -> np.ndarray:
    return graph.features if isinstance(graph.features, np.ndarray) else graph.features.toarray()


# Masks


def test_masks_of_a_table_are_the_split_and_no_features(tmp_path: Path) -> None:
    nodes = "id,label,h,train_mask,val_mask,test_mask\n"
    nodes += "a,x,1,1,0,0\nb,y,2,0,1,0\nc,x,3,0,0,1\nd,y,4,1,0,0\ne,x,5,0,0,0\nf,,6,1,0,0\n"
    made = prepared(tmp_path, CustomDataset(path=tables(tmp_path, nodes)))
    graph, roles = made.graph()
    assert graph.num_features == 1 and roles.tolist() == [0, 1, 2, 0, -1, -1]
    assert made.data["split"] == "masks" and "the role of 1 nodes without a label" in made.data["dropped"]
    _, drawn = whole(tmp_path, CustomDataset(path=tmp_path, split="random"))
    assert np.count_nonzero(drawn >= 0) == 5


def test_masks_of_a_pyg_file_are_the_split(tmp_path: Path) -> None:
    masks = {"train_mask": [1, 0, 0, 0], "val_mask": [0, 1, 0, 0], "test_mask": [0, 0, 1, 1]}
    path = saved(tmp_path, **{name: torch.tensor(mask, dtype=torch.bool) for name, mask in masks.items()})
    assert whole(tmp_path, CustomDataset(path=path))[1].tolist() == [0, 1, 2, 2]
    several = {name: torch.tensor([mask, mask[::-1]], dtype=torch.bool).T.contiguous() for name, mask in masks.items()}
    path = saved(tmp_path, **several)
    with pytest.raises(SubflError, match=r"train_mask has 2 splits; state dataset\.mask_column=0 to 1, or"):
        whole(tmp_path, CustomDataset(path=path))
    assert whole(tmp_path, CustomDataset(path=path, mask_column=1))[1].tolist() == [2, 2, 1, 0]


def test_masks_that_overlap_or_are_not_all_there(tmp_path: Path) -> None:
    first, second = (torch.tensor(mask, dtype=torch.bool) for mask in ([1, 1, 0, 0], [0, 1, 1, 1]))
    path = saved(tmp_path, train_mask=first, val_mask=~first, test_mask=second)
    with pytest.raises(
        SubflError, match=r"3 nodes are in more than one of train_mask, val_mask, test_mask, the first in row 2"
    ):
        CustomDataset(path=path).load(tmp_path)
    path = saved(tmp_path, train_mask=first, test_mask=~first)
    graph = CustomDataset(path=path).load(tmp_path)
    assert graph.given_roles is None and "split nothing without val_mask" in graph.notes.warnings[0]
    assert CustomDataset(path=path, split="masks").load(tmp_path).given_roles.tolist() == [0, 0, 2, 2]  # type: ignore[union-attr]
    with pytest.raises(SubflError, match=r"needs train_mask and test_mask; it has train_mask"):
        CustomDataset(path=saved(tmp_path, train_mask=first), split="masks").load(tmp_path)
    with pytest.raises(SubflError, match=r"dataset\.split=masks needs train_mask, val_mask and test_mask; it has none"):
        CustomDataset(path=saved(tmp_path), split="masks").load(tmp_path)


def test_a_client_without_a_training_node_is_told_what_helps(tmp_path: Path) -> None:
    masks = {"train_mask": [1, 0, 0, 0], "val_mask": [0, 1, 0, 0], "test_mask": [0, 0, 1, 1]}
    path = saved(tmp_path, **{name: torch.tensor(mask, dtype=torch.bool) for name, mask in masks.items()})
    np.savez(tmp_path / "p.npz", split=[1, 2, 0, 0], client_0=[0, 1], client_1=[2, 3])
    with pytest.raises(SubflError, match=r"no training node; .*dataset\.split=random instead of the masks"):
        prepare(CustomDataset(path=path), RandomPartition(clients=2), tmp_path, tmp_path / "cache")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(SubflError, match=r"client 0 has no training node; the split in .*p\.npz gives none of its"):
            prepare(CustomDataset(path=path), GivenPartition(file=tmp_path / "p.npz"), tmp_path, tmp_path / "cache")


# Weights


def test_weights_of_edges_are_read_or_left_out(tmp_path: Path) -> None:
    weighted = EDGES.replace("\n", ",0.5\n").replace("source,target,0.5", "source,target,Weight")
    graph = CustomDataset(path=tables(tmp_path, edges=weighted), features=CITIES).load(tmp_path)
    assert graph.edge_weight is not None and graph.edge_weight.tolist() == [0.5] * 10
    ignored = CustomDataset(path=tmp_path, features=CITIES, edge_weights="ignore").load(tmp_path)
    assert ignored.edge_weight is None and "edges.csv: columns Weight" in ignored.notes.dropped
    tables(tmp_path, edges=weighted + "a,b,\nb,a,heavy\n")
    with pytest.raises(
        SubflError,
        match=r"1 x weight that is no number, first in row 7 \(heavy\); .*; 1 x empty weight, first in row 6",
    ):
        CustomDataset(path=tmp_path, features=CITIES).load(tmp_path)
    tables(tmp_path, edges=weighted + "b,a,3\n")
    with pytest.raises(SubflError, match=r"different weights.*dataset\.edge_weights=sum, mean, max or ignore"):
        CustomDataset(path=tmp_path, features=CITIES).load(tmp_path)
    graph = CustomDataset(path=tmp_path, features=CITIES, edge_weights="max").load(tmp_path)
    assert graph.edge_weight is not None and graph.edge_weight.tolist() == [3, 3] + [0.5] * 8


def test_weights_of_a_pyg_file(tmp_path: Path) -> None:
    path = saved(tmp_path, edge_weight=torch.tensor([1.0, 2.0, 4.0]), edge_attr=torch.ones(3, 2))
    graph = CustomDataset(path=path).load(tmp_path)
    assert graph.edge_weight is not None and graph.edge_weight.tolist() == [1, 1, 2, 2, 4, 4]
    assert graph.notes.dropped == ("g.pt: edge_attr [3, 2]",)
    path = saved(tmp_path, edge_attr=torch.tensor([[1.0], [2.0], [4.0]]))
    assert CustomDataset(path=path).load(tmp_path).edge_weight is None
    chosen = CustomDataset(path=path, columns=GraphColumns(weight="edge_attr")).load(tmp_path)
    assert chosen.edge_weight is not None and chosen.edge_weight.tolist() == [1, 1, 2, 2, 4, 4]
    adjacency = torch.sparse_coo_tensor([[1, 2, 3], [0, 1, 2]], [1.0, 2.0, 4.0], (4, 4)).to_sparse_csr()
    path = saved(tmp_path, adj_t=adjacency, edge_index=None)
    graph = CustomDataset(path=path).load(tmp_path)
    assert graph.edge_index.tolist() == chosen.edge_index.tolist()
    assert graph.edge_weight is not None and graph.edge_weight.tolist() == [1, 1, 2, 2, 4, 4]
    path = saved(tmp_path, edge_weight=torch.ones(2))
    with pytest.raises(SubflError, match=r"edge_weight has the shape \[2\]; expected one weight an edge, \[3\]"):
        CustomDataset(path=path).load(tmp_path)


# Features


def test_numbers_are_scaled_by_training_nodes_and_categories_become_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", ids=list("fedcba"), split=[1, 0, 0, 0, 2, 0], client_0=list("abcdef"))
    dataset = CustomDataset(path=tables(tmp_path), features=CITIES)
    made = prepared(tmp_path, dataset, GivenPartition(file=tmp_path / "p.npz"))
    graph, roles = made.graph()
    assert roles.tolist() == [0, 2, 0, 0, 0, -1]  # f has no label
    ages = np.array([10.0, 20, 30, 30, 50, 60])  # the median of a, c, e is filled in for d
    train = ages[[0, 2, 3, 4]]
    assert made.transform is not None
    assert made.transform.feature_names == ("age", "city=Bern", "city=Oslo", "city=Rome", "smoker")
    np.testing.assert_allclose(dense(graph)[:, 0], (ages - train.mean()) / train.std(), rtol=1e-6)
    cities = [[0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(dense(graph)[:, 1:], np.column_stack([cities, [0, 1, 0, 1, 1, 0]]))
    assert made.data["feature_kinds"] == {"categories": 3, "standardized": 1, "as they are": 1}
    assert "nodes.csv: 1 nodes have no city" in made.data["warnings"]


def test_the_treatment_of_training_is_applied_to_another_table(tmp_path: Path) -> None:
    made = prepared(tmp_path, CustomDataset(path=tables(tmp_path), features=CITIES))
    transform = made.transform
    assert transform is not None and transform.mean is not None and transform.scale is not None
    (tmp_path / "more").mkdir()
    nodes = "smoker,city,note,id,age\n1,Rome,?,q,\n0,Paris,?,r,90\n"
    other = CustomDataset(path=tables(tmp_path / "more", nodes, "source,target\nq,r\n")).load_as_trained(transform)
    known = np.array([10, 20, 30, np.nan, 50, 60])[made.graph()[1] == 0]
    median = np.nanmedian(known)
    expected = (np.array([median, 90.0]) - transform.mean[0]) / transform.scale[0]
    np.testing.assert_allclose(dense(other)[:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(dense(other)[:, 1:], [[0, 0, 1, 1], [0, 0, 0, 0]])
    assert "nodes.csv: columns note, which the model does not read" in other.notes.dropped
    assert "1 nodes have a city that is none of the categories which the model was trained with" in str(other.notes)
    with pytest.raises(SubflError, match=r"nodes.csv: the model reads the columns city, which are not there"):
        tables(tmp_path / "more", nodes.replace("city", "town"), "source,target\n")
        CustomDataset(path=tmp_path / "more").load_as_trained(transform)


@pytest.mark.parametrize("asked", [True, "auto", False])
def test_a_pyg_files_features_are_scaled_where_that_is_asked_for(tmp_path: Path, asked: bool) -> None:
    x = torch.tensor([[0.0, 5000, 1], [1, 20, 1], [0, 70, 0], [1, 3, 1]])
    path = saved(tmp_path, x=x)
    made = prepared(tmp_path, CustomDataset(path=path, features=FeatureSettings(standardize=asked)))
    graph, roles = made.graph()
    expected = x.double().numpy()
    if asked is True:
        expected[:, 1] = StandardScaler().fit(expected[roles == 0]).transform(expected)[:, 1]
    np.testing.assert_allclose(dense(graph), expected, rtol=1e-5)
    warned = [line for line in made.data["warnings"] if "differ much" in line]
    assert len(warned) == (asked is not True) and (not warned or "number 0 (1) to number 1 (5e+03)" in warned[0])


def test_sparse_features_are_scaled_and_never_centred(tmp_path: Path) -> None:
    x = torch.zeros(4, 30)
    x[0, 0], x[1, 0], x[2, 0], x[3, 7] = 2, 4, 6, 1
    path = saved(tmp_path, x=x.to_sparse_csr(), **{
        name: torch.tensor(mask).bool()
        for name, mask in (("train_mask", [1, 1, 0, 0]), ("val_mask", [0, 0, 1, 0]), ("test_mask", [0, 0, 0, 1]))
    })  # fmt: skip
    graph, _ = whole(tmp_path, CustomDataset(path=path, features=FeatureSettings(standardize=True)))
    assert not isinstance(graph.features, np.ndarray)
    expected = x.numpy().copy()
    expected[:, 0] /= 1.0  # the standard deviation of 2 and 4
    np.testing.assert_allclose(dense(graph), expected)


def test_columns_are_left_out_and_texts_count_as_missing(tmp_path: Path) -> None:
    nodes = NODES.replace("a,x,10", "a,x,NA").replace("d,y,,", "d,y,?,")
    dataset = CustomDataset(
        path=tables(tmp_path, nodes),
        features=FeatureSettings(ignore=("city",), missing=("NA", "?"), impute="zero", standardize=False),
    )
    graph, _ = whole(tmp_path, dataset)
    np.testing.assert_array_equal(dense(graph)[:, 0], [0, 20, 30, 0, 50, 60])
    assert graph.num_features == 2
    with pytest.raises(SubflError, match=r"value that is no number \(column age\), first in row 1 \(NA\)"):
        CustomDataset(path=tmp_path, features=FeatureSettings(ignore=("city",), impute="zero")).load(tmp_path)
    for key in ("ignore", "one_hot"):
        with pytest.raises(
            SubflError, match=f"dataset.features.{key} names town; the feature columns are age, city, smoker"
        ):
            CustomDataset(path=tmp_path, features=FeatureSettings(**{key: ("town",)})).load(tmp_path)


@pytest.mark.parametrize("form", ["text", "float text", "parquet"])
def test_a_number_that_means_missing_is_found_in_any_form(tmp_path: Path, form: str) -> None:
    ages = [10, 20, -999, 40, -999, 60]
    nodes = pd.DataFrame({"id": list("abcdef"), "label": list("xyxyxy"), "age": ages})
    tables(tmp_path)
    (tmp_path / "nodes.csv").unlink()
    if form == "parquet":
        nodes.to_parquet(tmp_path / "nodes.parquet")
    else:
        nodes["age"] = nodes["age"].astype(float if form == "float text" else int)
        nodes.to_csv(tmp_path / "nodes.csv", index=False)
    settings = FeatureSettings(missing=("-999",), impute="zero", standardize=False)
    graph, _ = whole(tmp_path, CustomDataset(path=tmp_path, features=settings))
    np.testing.assert_array_equal(dense(graph)[:, 0], [10, 20, 0, 40, 0, 60])
    graph, _ = whole(tmp_path, CustomDataset(path=tmp_path, features=settings.model_copy(update={"missing": ("7",)})))
    made = prepared(tmp_path, CustomDataset(path=tmp_path, features=settings.model_copy(update={"missing": ("7",)})))
    assert any("no feature is 7, which dataset.features.missing names" in line for line in made.data["warnings"])


def test_missing_values_of_a_pyg_file_are_filled_where_that_is_asked_for(tmp_path: Path) -> None:
    x = torch.tensor([[1.0, 2], [float("nan"), 4], [3, 6], [5, 8]])
    path = saved(tmp_path, x=x)
    with pytest.raises(SubflError, match="1 feature values are NaN"):
        CustomDataset(path=path).load(tmp_path)
    graph, _ = whole(tmp_path, CustomDataset(path=path, features=FeatureSettings(impute="zero")))
    np.testing.assert_array_equal(dense(graph)[:, 0], [1, 0, 3, 5])


def test_weights_that_are_none_are_located_by_row(tmp_path: Path) -> None:
    weighted = "source,target,weight\na,b,1\nb,c,0\nc,d,-2\nd,d,0\n"
    with pytest.raises(
        SubflError, match=r"edges\.csv: 2 x weight that is not positive and finite, first in row 2 \(0\.0\)"
    ):
        CustomDataset(path=tables(tmp_path, edges=weighted), features=CITIES).load(tmp_path)
    weighted = "source,target,weight\nc,d,1\nd,c,2\n"
    with pytest.raises(SubflError, match=r"different weights, the first are c and d \(1\.0 and 2\.0\)"):
        CustomDataset(path=tables(tmp_path, edges=weighted), features=CITIES).load(tmp_path)


def test_numbers_on_the_command_line_are_texts_of_the_data() -> None:
    settings = FeatureSettings.model_validate({"one_hot": {"floor": [1, 2]}, "missing": [-999], "ignore": [True]})
    assert settings.one_hot == {"floor": ("1", "2")} and settings.missing == ("-999",) and settings.ignore == ("True",)
    with pytest.raises(ValidationError, match="categories must be named once each"):
        FeatureSettings.model_validate({"one_hot": {"floor": [1, "1"]}})


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    nodes = "id,label,h,w\na,x,1,2\na,y,tall,\n,x,3,inf\n"
    with pytest.raises(SubflError) as refused:
        CustomDataset(path=tables(tmp_path, nodes, "source,target\n")).load(tmp_path)
    message = str(refused.value)
    for part in (
        "1 x empty id, first in row 3",
        "1 x repeated id, first in row 2 (a)",
        "(column h), first in row 2 (tall)",
        "missing feature (column w), first in row 2",
        "infinite feature (column w), first in row 3",
    ):
        assert part in message, part
    assert "\n" not in message and message.count("nodes.csv") == 1


def test_a_column_that_counts_rows_is_remarked_on(tmp_path: Path) -> None:
    nodes = "index,id,label,h\n" + "".join(f"{i},n{i},{'xy'[i % 2]},{i * i}\n" for i in range(5))
    graph = CustomDataset(path=tables(tmp_path, nodes, "source,target\nn0,n1\n")).load(tmp_path)
    assert any("the feature index counts the rows" in line for line in graph.notes.warnings)


@pytest.mark.parametrize("rule", ["degree", "identity"])
def test_nodes_without_features_get_some_of_the_edges(tmp_path: Path, rule: Any) -> None:
    star = "source,target\n" + "".join(f"hub,n{i}\n" for i in range(70))
    nodes = "id,label\nhub,x\n" + "".join(f"n{i},{'xy'[i % 2]}\n" for i in range(70)) + "alone,y\n"
    dataset = CustomDataset(path=tables(tmp_path, nodes, star), features=FeatureSettings(from_structure=rule))
    made = prepared(tmp_path, dataset)
    features = dense(made.graph()[0])
    if rule == "identity":
        np.testing.assert_array_equal(features, np.eye(72))
    else:
        expected = np.zeros((72, 65))
        expected[0, 64] = expected[71, 0] = 1  # 70 neighbours count as 64
        expected[1:71, 1] = 1
        np.testing.assert_array_equal(features, expected)
    with pytest.raises(SubflError, match=r"from_structure=degree makes some"):
        CustomDataset(path=tmp_path).load(tmp_path)
    with pytest.raises(SubflError, match="is for nodes without features, and these have 5"):
        CustomDataset(path=tables(tmp_path), features=CITIES.model_copy(update={"from_structure": rule})).load(tmp_path)


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"row_normalize and features.standardize exclude each other"):
        CustomDataset(path="g.pt", row_normalize=True, features=FeatureSettings(standardize=True))
    with pytest.raises(ValidationError, match="must be an encoding that Python knows"):
        CustomDataset(path="g.pt", encoding="utf-99")


# Columns and ids


@pytest.mark.parametrize(
    "header", ["ID,Label,age,city,smoker", " node_id , LABEL,age,city,smoker", "Node ID,label,age,city,smoker"]
)
def test_columns_are_found_in_any_case(tmp_path: Path, header: str) -> None:
    nodes = NODES.replace("id,label,age,city,smoker", header)
    edges = EDGES.replace("source,target", "Source,TARGET")
    graph = CustomDataset(path=tables(tmp_path, nodes, edges), features=CITIES).load(tmp_path)
    assert graph.class_names == ("x", "y") and graph.num_edges == 10 and graph.num_features == 5


def test_columns_are_named_where_they_are_called_otherwise(tmp_path: Path) -> None:
    nodes, edges = NODES.replace("id,label", "person,outcome"), EDGES.replace("source,target", "from,to")
    with pytest.raises(SubflError, match=r"the column id is missing; .*; dataset\.columns\.id=\.\.\. names a column"):
        CustomDataset(path=tables(tmp_path, nodes, edges)).load(tmp_path)
    columns = GraphColumns(id="person", label="outcome", source="from", target="to")
    graph = CustomDataset(path=tmp_path, columns=columns, features=CITIES).load(tmp_path)
    assert graph.node_names is not None and graph.node_names.tolist() == list("abcdef")
    with pytest.raises(SubflError, match=r"there is no column name \(dataset\.columns\.id\); its columns are person"):
        CustomDataset(path=tmp_path, columns=GraphColumns(id="name")).load(tmp_path)
    with pytest.raises(SubflError, match=r"the columns label and Label may both be the label; state dataset\.columns"):
        CustomDataset(path=tables(tmp_path, NODES.replace("smoker", "Label"))).load(tmp_path)


def test_whole_numbers_with_a_point_are_the_ids_without(tmp_path: Path) -> None:
    nodes, edges = "id,label,h\n1,x,5\n2,y,7\n3,x,8\n", "source,target\n1.0,2.0\n2.0,3.0\n"
    assert CustomDataset(path=tables(tmp_path, nodes, edges)).load(tmp_path).num_edges == 4
    nodes = "id,label,h\n1,x,5\n1.0,y,7\nA,x,8\n"
    with pytest.raises(SubflError, match=r"1 x id written both as a whole number and with a point, the first is 1.0"):
        CustomDataset(path=tables(tmp_path, nodes, "source,target\n")).load(tmp_path)
    with pytest.raises(
        SubflError, match="1 x repeated id, first in row 2"
    ):  # in a column of whole numbers they are one
        CustomDataset(path=tables(tmp_path, nodes.replace("A", "4"), "source,target\n")).load(tmp_path)


# Partitions by id


def test_a_given_partition_calls_nodes_by_their_ids(tmp_path: Path) -> None:
    nodes = "id,label,h\n30,x,1\n10,y,2\n20,x,3\n40,y,4\n"
    dataset = CustomDataset(path=tables(tmp_path, nodes, "source,target\n10,20\n30,40\n"))
    file = tmp_path / "p.npz"
    np.savez(file, ids=[10, 20, 30, 40], split=[0, 1, 0, 2], client_0=[20, 10], client_1=[30, 40])
    made = prepared(tmp_path, dataset, GivenPartition(file=file))
    names = made.node_names()
    assert names is not None
    assert [names[made.client(client).node_ids].tolist() for client in (0, 1)] == [["10", "20"], ["30", "40"]]
    assert made.graph()[1].tolist() == [0, 0, 1, 2]
    by_row = GivenPartition(file=file, by="row")
    with pytest.raises(SubflError, match=r"client_0 names the nodes 10\.\.20; the graph has the nodes 0\.\.3"):
        prepared(tmp_path, dataset, by_row)
    np.savez(file, split=[0, 1, 0, 2], client_0=[2, 1], client_1=[0, 3])
    assert prepared(tmp_path, dataset, by_row).client(0).node_ids.tolist() == [1, 2]
    with pytest.raises(SubflError, match=r"it has no array ids, of the same length as split"):
        prepared(tmp_path, dataset, GivenPartition(file=file))
    np.savez(file, ids=["10", "20", "30"], split=[0, 1, 0], client_0=["10"], client_1=["77", "30"])
    with pytest.raises(SubflError, match=r"1 entries of client_1 are no ids of the data set, the first is '77'"):
        prepared(tmp_path, dataset, GivenPartition(file=file))
    np.savez(file, ids=["10", "10"], split=[0, 1], client_0=["10"])
    with pytest.raises(SubflError, match="ids names a node more than once"):
        prepared(tmp_path, dataset, GivenPartition(file=file))
    with pytest.raises(SubflError, match=r"partition\.by=id: the data set has no ids"):
        prepared(tmp_path, CustomDataset(path=saved(tmp_path)), GivenPartition(file=file, by="id"))


# Facts


def test_facts_and_fingerprints_of_prepared_data(tmp_path: Path) -> None:
    edges = EDGES + "a,a\nb,a\na,b\n"
    made = prepared(
        tmp_path, CustomDataset(path=tables(tmp_path, edges=edges), features=CITIES), RandomPartition(clients=2)
    )
    data = made.data
    assert (data["nodes"], data["edges"], data["features"], data["components"]) == (6, 5, 5, 1)
    assert data["classes"] == {"x": 3, "y": 2} and data["unlabelled"] == 1
    assert (data["self_loops"], data["repeated_edges"], data["edges_listed_one_way"]) == (1, 1, 4)
    assert data["dropped"] == ["1 self-loops", "1 repeated edges"]
    assert [client["nodes"] for client in data["clients"]] == [3, 3]
    assert set(data["fingerprints"]["files"]) == {"nodes.csv", "edges.csv"}
    again = data["fingerprints"]
    (tmp_path / "nodes.csv").write_text(NODES.replace("Bern", "Kyiv"))
    changed = prepared(tmp_path, CustomDataset(path=tmp_path, features=CITIES), RandomPartition(clients=2)).data[
        "fingerprints"
    ]
    same = {part for part in again if again[part] == changed[part]}
    assert same == {"split", "partition"} and again["files"]["edges.csv"] == changed["files"]["edges.csv"]
    other = prepared(tmp_path, CustomDataset(path=tmp_path, features=CITIES), RandomPartition(clients=2, seed=7)).data
    assert {part for part in again if other["fingerprints"][part] != changed[part]} >= {"split", "partition"}


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ("xxxxxxxxxy", r"the class x has 90\.0% of all labels"),
        ("xxxxxyyyyy", None),
    ],
)
def test_a_majority_is_warned_of(tmp_path: Path, labels: str, warning: str | None) -> None:
    nodes = "id,label,h\n" + "".join(f"n{i},{label},{i * i}\n" for i, label in enumerate(labels))
    dataset = CustomDataset(path=tables(tmp_path, nodes, "source,target\nn0,n1\n"), train_fraction=0.6)
    found = [line for line in prepared(tmp_path, dataset).data["warnings"] if "of all labels" in line]
    assert len(found) == (warning is not None) and (not found or re.match(str(warning), found[0]))


def test_one_class_is_no_task(tmp_path: Path) -> None:
    nodes = "id,label,h\na,x,1\nb,x,2\n"
    dataset = CustomDataset(path=tables(tmp_path, nodes, "source,target\na,b\n"))
    with pytest.raises(SubflError, match="all labels are the same; a task of classes needs at least two"):
        prepare(dataset, WholePartition(), tmp_path, tmp_path / "cache")
    assert prepared(tmp_path, dataset).num_classes == 1
