"""Features that training meets: those of nodes so many edges away from a training node."""

from __future__ import annotations

import numpy as np
import pytest

from subfl_flower.data.graph import NO_ROLE, TEST, TRAIN, ClientGraph
from subfl_flower.subgraphs.models.chunk import features_within_reach

NODES = 7


def path_graph(training: list[int]) -> ClientGraph:
    """Nodes in a row, each with a feature that no other has."""
    ahead = np.array([np.arange(NODES - 1), np.arange(1, NODES)])
    roles = np.full(NODES, NO_ROLE, dtype=np.int8)
    roles[[node for node in (1, 6) if node not in training]] = TEST
    roles[training] = TRAIN
    return ClientGraph(
        client_id=0,
        node_ids=np.arange(NODES),
        features=np.eye(NODES, dtype=np.float32),
        edge_index=np.concatenate([ahead, ahead[::-1]], axis=1),
        labels=np.zeros(NODES, dtype=np.int64),
        num_classes=2,
        roles=roles,
        shareable=np.zeros(NODES, dtype=bool),
    )


@pytest.mark.parametrize(
    ("training", "hops", "reached"),
    [
        ([2], 0, [2]),
        ([2], 1, [1, 2, 3]),
        ([2], 2, [0, 1, 2, 3, 4]),
        ([2], 3, [0, 1, 2, 3, 4, 5]),
        ([0, 6], 0, [0, 6]),
        ([0, 6], 1, [0, 1, 5, 6]),
        ([0, 6], 2, [0, 1, 2, 4, 5, 6]),
        ([0, 6], 3, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_on_a_path_every_hop_reaches_one_node_further(training: list[int], hops: int, reached: list[int]) -> None:
    assert np.flatnonzero(features_within_reach(path_graph(training), hops)).tolist() == reached
