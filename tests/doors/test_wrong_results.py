"""Results of a user's data set and partition that cannot be trained on: one sentence, not other numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subfl_flower.api import (
    DatasetSettings,
    Graph,
    PartitionSettings,
    RatingDatasetSettings,
    RawGraph,
    RawRatings,
)
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import SubflError

NODES = np.arange(20)


class Ring(DatasetSettings):
    """Twenty nodes in a ring; labels are 0 and 1 in turn, plus `shift`. `case` spoils what is read."""

    version = "1"
    shift: float = 0.0
    case: str = ""

    def read(self, root: Path) -> Any:
        raw = RawGraph(np.eye(20), np.stack([NODES, (NODES + 1) % 20]), NODES % 2 + self.shift)
        return SPOILT_GRAPHS[self.case][0](raw) if self.case else raw


class Rated(RatingDatasetSettings):
    """Ratings of four users for five items each. `case` spoils what is read."""

    version = "1"
    case: str = ""

    def read(self, root: Path) -> Any:
        raw = RawRatings("here", NODES // 5, NODES % 5, NODES % 3 + 1.0)
        return SPOILT_RATINGS[self.case][0](raw) if self.case else raw


class Given(PartitionSettings):
    """Whatever `given` holds by the name of a case."""

    version = "1"
    case: str

    def assign(self, graph: Graph) -> Any:
        return CASES[self.case][0]


CASES: dict[str, tuple[Any, str]] = {
    "halves": ([NODES[:10], NODES[10:]], ""),
    "a node twice": ([np.sort(np.r_[NODES[:10], 3]), NODES[10:]], "client 0 are not ascending, each once"),
    "descending": ([NODES[:10], NODES[:9:-1]], "client 1 are not ascending, each once"),
    "beyond": ([NODES[:10], NODES[10:] + 1], "client 1 gets a node outside 0..19"),
    "negative": ([NODES[:10] - 1, NODES[10:]], "client 0 gets a node outside 0..19"),
    "masks": ([NODES < 10, NODES >= 10], "client 0 does not get an array of node ids"),
    "floats": ([NODES[:10], NODES[10:] * 1.0], "client 1 does not get an array of node ids"),
    "client of each node": (NODES // 10, "gives ndarray; expected a list"),
    "nothing": (None, "gives NoneType; expected a list"),
}


SPOILT_GRAPHS: dict[str, tuple[Callable[[RawGraph], Any], str]] = {
    "nothing": (lambda raw: None, r"read\(\) gives NoneType; it must return a RawGraph"),
    "a pair": (lambda raw: (raw.features, raw.edge_index), r"read\(\) gives tuple; it must return a RawGraph"),
    "features in lists": (
        lambda raw: replace(raw, features=raw.features.tolist()),  # type: ignore[union-attr]
        r"features are of the type list; expected a NumPy array \[nodes, features\]",
    ),
    "one feature a node": (
        lambda raw: replace(raw, features=NODES * 1.0),
        r"features have the shape \[20\]; expected \[nodes, features\]",
    ),
    "features as text": (
        lambda raw: replace(raw, features=np.full((20, 2), "1")),
        "features are of the type <U1; expected numbers",
    ),
    "edges as tensors": (
        lambda raw: replace(raw, edge_index=torch.from_numpy(raw.edge_index)),
        r"edges are of the type Tensor; expected a NumPy array \[2, edges\]",
    ),
    "edges as pairs": (
        lambda raw: replace(raw, edge_index=raw.edge_index.T),
        r"edges have the shape \[20, 2\]; expected \[2, edges\]",
    ),
    "edges with fractions": (
        lambda raw: replace(raw, edge_index=raw.edge_index + 0.5),
        "edges are of the type float64; expected whole numbers",
    ),
    "labels in a list": (
        lambda raw: replace(raw, labels=[0, 1] * 10),
        r"labels are of the type list; expected a NumPy array \[20\]",
    ),
    "labels as text": (
        lambda raw: replace(raw, labels=np.array(["a", "b"] * 10)),
        "labels are of the type <U1; expected numbers",
    ),
    "a weight too few": (
        lambda raw: replace(raw, edge_weight=np.ones(19)),
        r"edge weights have the shape \[19\]; expected \[20\]",
    ),
    "a label far away": (
        lambda raw: replace(raw, labels=np.where(NODES == 3, 10**12, NODES % 2)),
        "labels run up to 1000000000000 of 1000000000001 classes, and 100000 are allowed; number the classes from 0",
    ),
    "many classes": (
        lambda raw: replace(raw, num_classes=10**12),
        "labels run up to 1 of 1000000000000 classes, and 100000 are allowed",
    ),
}
SPOILT_RATINGS: dict[str, tuple[Callable[[RawRatings], Any], str]] = {
    "nothing": (lambda raw: None, r"dataset=rated: read\(\) gives NoneType; it must return a RawRatings"),
    "values in a list": (
        lambda raw: replace(raw, values=raw.values.tolist()),
        r"here: values are of the type list; expected a NumPy array \[ratings\]",
    ),
    "values as text": (
        lambda raw: replace(raw, values=np.full(20, "3")),
        "here: values are of the type <U1; expected numbers",
    ),
    "users in a list": (
        lambda raw: replace(raw, users=raw.users.tolist()),
        r"here: users are of the type list; expected a NumPy array \[20\]",
    ),
    "an item too few": (
        lambda raw: replace(raw, items=raw.items[1:]),
        r"here: items have the shape \[19\]; expected \[20\]",
    ),
    "times as text": (
        lambda raw: replace(raw, timestamps=np.full(20, "today")),
        "here: timestamps are of the type <U5; expected whole numbers",
    ),
}


@pytest.mark.parametrize("case", list(SPOILT_GRAPHS))
def test_a_class_that_reads_no_graph_is_one_sentence(case: str, tmp_path: Path) -> None:
    assert Ring().load(tmp_path).num_nodes == 20
    with pytest.raises(SubflError, match=f"^dataset=ring: {SPOILT_GRAPHS[case][1]}"):
        Ring(case=case).load(tmp_path)


@pytest.mark.parametrize("case", list(SPOILT_RATINGS))
def test_a_class_that_reads_no_ratings_is_one_sentence(case: str, tmp_path: Path) -> None:
    assert len(Rated().load(tmp_path, 0).ratings) == 20
    with pytest.raises(SubflError, match=f"^{SPOILT_RATINGS[case][1]}"):
        Rated(case=case).load(tmp_path, 0)


@pytest.mark.parametrize("clients", [1, 3, 10])
def test_a_partition_gives_as_many_clients_as_were_asked_for(clients: int, tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=f"^partition=given: gives 2 clients, and partition.clients={clients}$"):
        prepare(Ring(), Given(case="halves", clients=clients), tmp_path, tmp_path)
    assert prepare(Ring(), Given(case="halves", clients=None), tmp_path, tmp_path).num_clients == 2


@pytest.mark.parametrize("case", list(CASES))
def test_a_partition_gives_every_client_nodes_of_the_graph_each_once(case: str, tmp_path: Path) -> None:
    said = CASES[case][1]
    if not said:
        assert prepare(Ring(), Given(case=case, clients=2), tmp_path, tmp_path).num_clients == 2
        return
    with pytest.raises(SubflError, match=f"^partition=given: .*{said}"):
        prepare(Ring(), Given(case=case), tmp_path, tmp_path)


def test_labels_between_two_classes_are_refused_and_whole_floats_are_not(tmp_path: Path) -> None:
    assert Ring(shift=1.0).load(tmp_path).num_classes == 3  # 1 and 2
    with pytest.raises(SubflError, match=r"^dataset=ring: labels must be whole numbers"):
        Ring(shift=0.5).load(tmp_path)
