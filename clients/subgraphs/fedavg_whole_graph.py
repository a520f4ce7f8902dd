"""Clients that compute on the whole graph and learn from their own nodes: FedAvg on full information.

A client's model passes messages over the graph that the clients' subgraphs were cut from, with all nodes and edges that
others hold. Its loss and metric are those of the nodes that it holds. This is an upper bound for methods that exchange
across subgraphs, and possible only in a simulation.

A client keeps only the nodes of the whole graph on which its own nodes' outputs depend: after L convolutions, of which
the first is computed beforehand, those at most L - 1 edges away. Operator and inputs are cut from the whole graph's, so
that degrees are those of the whole graph. The furthest nodes lack their neighbours' messages, and what is computed
there reaches no own node. For a network that does not declare how far it reaches, a client keeps all nodes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.subgraphs.models.local_graph import LocalGraph, present_features

_NOBODY = -1


class WholeGraphClient(SubgraphClient):
    """Train on a client's own nodes with messages from all others."""

    protects_uploads = False

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
        """True: every client's graph is extended."""
        return True

    @cached_property
    def _whole(self) -> LocalGraph:
        """The whole graph as a client's local graph, as far as the task shows it."""
        everything = self.cohort.whole_graph(_NOBODY, "full information")
        return self.model.local_graph(self.cohort.task.visible(everything))
