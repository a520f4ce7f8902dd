from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch_geometric.data import Data

from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.graph import Graph
from subfl_flower.errors import SubflError


def table(folder: Path, labels: list[str], classes: tuple[str | int, ...] | None) -> Graph:
    rows = [f"n{position},{label},1" for position, label in enumerate(labels)]
    (folder / "nodes.csv").write_text("\n".join(["id,label,x", *rows, ""]))
    (folder / "edges.csv").write_text("source,target\nn0,n1\n")
    return CustomDataset(path=folder, classes=classes).load(folder)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["b", "a", "", "b"], ("b", "c", "a"), [0, 2, -1, 0]),
        (["9", "1", "", "5"], (5, 9, 1), [1, 2, -1, 0]),  # pandas reads integers with a gap as floats
        (["9", "1", "-1", "5"], ("5", "9", "1"), [1, 2, -1, 0]),
        (["9", "1", "", "5"], None, [2, 0, -1, 1]),
    ],
)
def test_a_tables_classes_have_the_numbers_that_are_stated(
    tmp_path: Path, labels: list[str], classes: tuple[str | int, ...] | None, expected: list[int]
) -> None:
    graph = table(tmp_path, labels, classes)
    np.testing.assert_array_equal(graph.labels, expected)
    assert graph.num_classes == 3


@pytest.mark.parametrize("kind", [torch.int64, torch.float32])
def test_a_tensors_classes_have_the_numbers_that_are_stated(tmp_path: Path, kind: torch.dtype) -> None:
    data = Data(x=torch.ones(4, 1), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([9, 1, -1, 9]).to(kind))
    torch.save(data, tmp_path / "g.pt")
    graph = CustomDataset(path=tmp_path / "g.pt", classes=(5, 9, 1)).load(tmp_path)
    np.testing.assert_array_equal(graph.labels, [1, 2, -1, 1])
    assert graph.num_classes == 3


def test_other_labels_and_repeated_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"nodes.csv: 2 labels are none of dataset.classes, the first is 'c'; .* a, b"):
        table(tmp_path, ["a", "c", "d", "b"], ("a", "b"))
    with pytest.raises(ValidationError, match="every class must be named once"):
        CustomDataset(path=tmp_path, classes=("1", 1))
