"""Clients that compute on the whole graph and learn from their own nodes: FedAvg on full information.

A client's model passes messages over the graph that the clients' subgraphs were cut from, with all nodes and edges that
others hold; loss and metric are those of its own nodes. It is what methods that exchange across subgraphs come near to,
and possible in a simulation alone.

Of the whole graph a client keeps the nodes that its own nodes' outputs depend on: after L convolutions, of which the
first is computed beforehand, those at most L - 1 edges away. Operator and inputs are cut from the whole graph's, so
that degrees are those of the whole graph. What is computed at the nodes furthest away lacks their neighbours and
reaches no own node. For a network that does not say how far it reaches, a client keeps all nodes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.subgraphs.models.local_graph import LocalGraph, present_features

_NOBODY = -1


class WholeGraphClient(SubgraphClient):
    """Trains on its own nodes with messages from all others."""

    def local_graph(self, position: int) -> LocalGraph:
        """The part of the whole graph that the outputs at the client's own nodes depend on.

        Raises:
            SubflError: the whole graph is not at hand.
        """
        whole, own = self._whole, self.cohort.visible[position].node_ids
        reach = self.model.reach
        near = np.full(whole.num_nodes, reach is None)
        near[own] = True
        for _ in range(reach or 0):
            near[whole.operator[np.flatnonzero(near)].indices] = True
        near[own] = False
        nodes = np.concatenate([own, np.flatnonzero(near)])
        inputs = whole.inputs[nodes]
        return replace(
            whole,
            client_id=self.cohort.client_ids[position],
            num_own=len(own),
            operator=whole.operator[nodes][:, nodes],
            inputs=inputs,
            feature_support=present_features(inputs),
            structure=None if whole.structure is None else whole.structure[nodes],
        )

    def mended(self, client_id: int) -> bool:
        """Every client's graph is."""
        return True

    @cached_property
    def _whole(self) -> LocalGraph:
        """The whole graph as a client's own, as far as the task lets it be seen."""
        everything = self.cohort.whole_graph(_NOBODY, "full information")
        return self.model.local_graph(self.cohort.task.visible(everything))
