from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch_geometric.data import Data

from subfl_flower.composition import composed_config
from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.datasets.custom_settings import FeatureSettings, GraphColumns
from subfl_flower.data.graph import Graph
from subfl_flower.errors import SubflError


def table(folder: Path, labels: list[str], **settings: Any) -> Graph:
    rows = [f"n{position},{label},1" for position, label in enumerate(labels)]
    (folder / "nodes.csv").write_text("\n".join(["id,label,x", *rows, ""]))
    (folder / "edges.csv").write_text("source,target\nn0,n1\n")
    return CustomDataset(path=folder, **settings).load(folder)


def tensor(folder: Path, labels: list[Any], kind: torch.dtype = torch.int64, **settings: Any) -> Graph:
    y = torch.tensor(labels).to(kind)
    torch.save(Data(x=torch.ones(len(y), 1), edge_index=torch.tensor([[0], [1]]), y=y), folder / "g.pt")
    return CustomDataset(path=folder / "g.pt", **settings).load(folder)


@pytest.mark.parametrize(
    ("labels", "settings", "names", "expected"),
    [
        (["b", "a", "", "b"], {"classes": ("b", "c", "a")}, ("b", "c", "a"), [0, 2, -1, 0]),
        (["9", "1", "", "5"], {"classes": (5, 9, 1)}, ("5", "9", "1"), [1, 2, -1, 0]),
        (["9", "1", "-1", "5"], {"classes": ("5", "9", "1"), "unlabelled": (-1,)}, ("5", "9", "1"), [1, 2, -1, 0]),
        (["10", "9", "", "1"], {}, ("1", "9", "10"), [2, 1, -1, 0]),
        (["-1", "1", "", "-1"], {}, ("-1", "1"), [0, 1, -1, 0]),  # of a table only an empty label is none
        (["NA", "None", "nan", "null"], {}, ("NA", "None", "nan", "null"), [0, 1, 2, 3]),
        (["00", "01", "0", "1"], {}, ("0", "00", "01", "1"), [1, 2, 0, 3]),
        (["1E5", "100000", "1e5", ""], {}, ("100000", "1E5", "1e5"), [1, 0, 2, -1]),
        (
            ["10000000000000001", "10000000000000002", "", ""],
            {},
            ("10000000000000001", "10000000000000002"),
            [0, 1, -1, -1],
        ),
        ([" a", "a ", "b", "a"], {}, ("a", "b"), [0, 0, 1, 0]),
        (["1", "1.0", "2", "2.0"], {}, ("1", "2"), [0, 0, 1, 1]),
        (["1.0", "a", "1.0", "b"], {}, ("1.0", "a", "b"), [0, 1, 0, 2]),
        (["True", "FALSE", "True", ""], {"classes": (True, False)}, ("True", "FALSE"), [0, 1, 0, -1]),
        (["NaN", "None", "ok", ""], {"classes": (float("nan"), "None", "ok")}, ("NaN", "None", "ok"), [0, 1, 2, -1]),
        (["0.5", "1.5", "0.5", ""], {"classes": (0.5, 1.5)}, ("0.5", "1.5"), [0, 1, 0, -1]),
        (["x", "unknown", "y", "?"], {"unlabelled": ("unknown", "?")}, ("x", "y"), [0, -1, 1, -1]),
    ],
)
def test_labels_of_a_table_are_text(
    tmp_path: Path, labels: list[str], settings: dict[str, Any], names: tuple[str, ...], expected: list[int]
) -> None:
    graph = table(tmp_path, labels, **settings)
    assert graph.labels is not None
    assert (graph.labels.tolist(), graph.class_names, graph.num_classes) == (expected, names, len(names))


def test_a_mixed_column_has_the_same_classes_wherever_a_label_stands(tmp_path: Path) -> None:
    """A reader that guesses types by pieces of a file makes two classes of 7 and 7, in a long column with words."""
    labels = ["7"] * 300_000 + ["x"] + ["7"] * 10
    graph = table(tmp_path, labels)
    assert graph.class_names == ("7", "x") and graph.labels is not None
    assert np.bincount(graph.labels).tolist() == [300_010, 1]


@pytest.mark.parametrize(
    ("labels", "kind", "settings", "names", "expected"),
    [
        ([9, 1, -1, 9], torch.int64, {"classes": (5, 9, 1)}, ("5", "9", "1"), [1, 2, -1, 1]),
        ([9, 1, -1, 9], torch.float32, {"classes": (5, 9, 1)}, ("5", "9", "1"), [1, 2, -1, 1]),
        ([3, 1, -100, 2], torch.int32, {}, ("1", "2", "3"), [2, 0, -1, 1]),
        ([2.0, float("nan"), 0.0, 1.0], torch.bfloat16, {}, ("0", "1", "2"), [2, -1, 0, 1]),
        ([True, False, True, True], torch.bool, {}, ("False", "True"), [1, 0, 1, 1]),
        ([1, -1, 1, -1], torch.int64, {"unlabelled": ()}, ("-1", "1"), [1, 0, 1, 0]),
        ([1, -1, 1, 2], torch.int64, {"unlabelled": (1,)}, ("-1", "2"), [-1, 0, -1, 1]),
    ],
)
def test_labels_of_a_tensor_have_the_names_that_they_have(
    tmp_path: Path,
    labels: list[Any],
    kind: torch.dtype,
    settings: dict[str, Any],
    names: tuple[str, ...],
    expected: Any,
) -> None:
    graph = tensor(tmp_path, labels, kind, **settings)
    assert graph.labels is not None
    assert (graph.labels.tolist(), graph.class_names) == (expected, names)


def test_labels_with_a_gradient_or_sparse_are_read(tmp_path: Path) -> None:
    for y in (torch.tensor([1.0, 0.0, 2.0], requires_grad=True), torch.tensor([1, 0, 2]).to_sparse()):
        torch.save(Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0], [1]]), y=y), tmp_path / "g.pt")
        graph = CustomDataset(path=tmp_path / "g.pt").load(tmp_path)
        assert graph.labels is not None and graph.labels.tolist() == [1, 0, 2]


def test_minus_one_and_one_are_refused_until_their_meaning_is_stated(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"the labels are -1 and 1, .*dataset\.unlabelled=\[\] for two"):
        tensor(tmp_path, [1, -1, 1])
    graph = tensor(tmp_path, [1, -1, 1], unlabelled=(-1,))
    assert graph.labels is not None and graph.labels.tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    "labels",
    [
        ["1,5", "2,5", "3,5"],
        ["1.5", "2.25", "NA"],
        ["nan", "0.5", "inf", "0.25"],
        ["12.5%", "13%", "1%"],
        ["0.1", "0.2", "0.3", "0.4", "unknown"],
    ],
)
def test_measurements_in_any_form_are_refused(tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(SubflError, match="label is not a class"):
        table(tmp_path, [f'"{label}"' for label in labels])
    assert table(tmp_path, ["v1.5", "v2.5", "1.5", ""]).num_classes == 3


def test_a_label_is_written_in_one_way_only(tmp_path: Path) -> None:
    graph = table(tmp_path, ["1", "1.0", "unknown", "2"], unlabelled=("unknown",))
    assert graph.class_names == ("1", "2") and graph.labels is not None and graph.labels.tolist() == [0, 0, -1, 1]
    with pytest.raises(SubflError, match=r"nodes\.csv: the labels 1 and 1\.0 stand beside words"):
        table(tmp_path, ["1", "1.0", "unknown", "2"])


def test_labels_that_mean_none_and_stand_nowhere_are_remarked_on(tmp_path: Path) -> None:
    notes = table(tmp_path, ["NA", "x", "y"] * 2, unlabelled=("na",)).notes
    assert any("no label is na, which dataset.unlabelled names" in line for line in notes.warnings)
    with pytest.raises(ValidationError, match="classes and unlabelled name the same label"):
        CustomDataset(path=tmp_path, classes=("a", "b"), unlabelled=("a",))
    with pytest.raises(ValidationError, match="a class needs a name"):
        CustomDataset(path=tmp_path, classes=(" ", "b"))


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"y": [0, 1, 0, 1]}, r"g\.pt: y is a list; make a tensor of it"),
        ({"x": [[1.0], [2.0]]}, r"x is a list"),
        ({"edge_weight": [1.0]}, r"edge_weight is a list"),
        ({"train_mask": [True]}, r"train_mask is a list"),
        ({"y": torch.tensor([1e20, 0, 0, 0])}, r"y holds 1e\+20; classes are whole numbers below"),
        ({"edge_weight": torch.tensor([1j])}, r"edge_weight is torch\.complex64; weights must be real"),
        ({"num_nodes": 9}, r"num_nodes is 9, and x has 4 rows"),
        ({"x": torch.ones(4, 1, device="meta")}, r"holds a tensor that cannot be read"),
        ({"val_mask": torch.ones(3, 4).bool()}, r"val_mask has the shape \[3, 4\]; expected \[4, splits\]"),
    ],
)
def test_what_no_plain_tensor_holds_is_refused(tmp_path: Path, attributes: dict[str, Any], sentence: str) -> None:
    data = Data(x=torch.ones(4, 1), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([0, 1, 0, 1]))
    for name, value in attributes.items():
        data[name] = value
    torch.save(data, tmp_path / "g.pt")
    with pytest.raises(SubflError, match=sentence):
        CustomDataset(path=tmp_path / "g.pt").load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"columns": GraphColumns(label="target")}, r"dataset\.columns\.label is for tables, and this is a PyG file"),
        ({"features": FeatureSettings(one_hot=("a",))}, r"dataset\.features\.one_hot is for tables"),
        ({"features": FeatureSettings(ignore=("a",))}, r"dataset\.features\.ignore is for tables"),
        ({"mask_column": 7}, r"train_mask is one split; leave dataset\.mask_column out"),
    ],
)
def test_settings_that_a_pyg_file_does_not_read_are_refused(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    data = Data(x=torch.ones(4, 1), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([0, 1, 0, 1]))
    data.train_mask = torch.ones(4).bool()
    torch.save(data, tmp_path / "g.pt")
    with pytest.raises(SubflError, match=sentence):
        CustomDataset(path=tmp_path / "g.pt", **settings).load(tmp_path)


def test_measurements_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(
        SubflError,
        match=r"nodes\.csv: label is not a class \(2 different fractional values on 3 nodes, the first is 0\.5",
    ):
        table(tmp_path, ["3", "0.5", "0.25", "0.5"])
    assert table(tmp_path, ["1.0", "2.0", "", "1.0"]).class_names == ("1", "2")


def test_other_labels_and_repeated_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"nodes.csv: 2 labels are none of dataset.classes, the first is 'c'; .* a, b"):
        table(tmp_path, ["a", "c", "d", "b"], classes=("a", "b"))
    with pytest.raises(ValidationError, match="every class must be named once"):
        CustomDataset(path=tmp_path, classes=("1", 1))
    with pytest.raises(ValidationError, match="null is no label"):
        CustomDataset(path=tmp_path, classes=[None, "a"])


@pytest.mark.parametrize(
    ("override", "labels", "names"),
    [
        ("[true,false]", ["True", "False", "True"], ("True", "False")),
        ("[00,01,02]", ["01", "00", "02"], ("00", "01", "02")),
        ("[None,nan,ok]", ["nan", "None", "ok"], ("None", "nan", "ok")),
        ("[1,2]", ["2", "1.0", "2"], ("1", "2")),
    ],
)
def test_classes_on_the_command_line_mean_the_labels_of_the_file(
    tmp_path: Path, override: str, labels: list[str], names: tuple[str, ...]
) -> None:
    table(tmp_path, labels)
    config, _ = composed_config(["dataset=custom", f"dataset.path={tmp_path}", f"dataset.classes={override}"])
    graph = config.dataset.load(tmp_path)  # type: ignore[union-attr, call-arg]
    assert isinstance(graph, Graph) and graph.class_names == names


@pytest.mark.parametrize(
    ("labels", "remark"),
    [
        ([f"c{i}" for i in range(8)], "8 classes on 8 labelled nodes"),
        (["a", "A", "b", "b"] * 2, "the classes A and a differ in case only"),
        (["-1", "1", "0", "1"] * 2, r"-1 is a class here; .* dataset\.unlabelled=\[-1\]"),
    ],
)
def test_labels_that_are_often_meant_otherwise_are_remarked_on(tmp_path: Path, labels: list[str], remark: str) -> None:
    [said] = table(tmp_path, labels).notes.warnings
    assert re.search(remark, said)
