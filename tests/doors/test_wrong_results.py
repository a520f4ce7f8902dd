"""Results of a user's data set and partition that cannot be trained on: one sentence, not other numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subfl_flower.api import DatasetSettings, Graph, PartitionSettings, RawGraph
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import SubflError

NODES = np.arange(20)


class Ring(DatasetSettings):
    """Twenty nodes in a ring; labels are 0 and 1 in turn, plus `shift`."""

    version = "1"
    shift: float = 0.0

    def read(self, root: Path) -> RawGraph:
        return RawGraph(np.eye(20), np.stack([NODES, (NODES + 1) % 20]), NODES % 2 + self.shift)


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


@pytest.mark.parametrize("case", list(CASES))
def test_a_partition_gives_every_client_nodes_of_the_graph_each_once(case: str, tmp_path: Path) -> None:
    said = CASES[case][1]
    if not said:
        assert prepare(Ring(), Given(case=case), tmp_path, tmp_path).num_clients == 2
        return
    with pytest.raises(SubflError, match=f"^partition=given: .*{said}"):
        prepare(Ring(), Given(case=case), tmp_path, tmp_path)


def test_labels_between_two_classes_are_refused_and_whole_floats_are_not(tmp_path: Path) -> None:
    assert Ring(shift=1.0).load(tmp_path).num_classes == 3  # 1 and 2
    with pytest.raises(SubflError, match=r"^dataset=ring: labels must be whole numbers"):
        Ring(shift=0.5).load(tmp_path)
