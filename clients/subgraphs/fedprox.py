r"""FedProx: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020: the clients' side.

A client's objective has the term :math:`\mu / 2 \lVert \theta - \bar\theta \rVert^2`
(`clients/subgraphs/local_weights.py`), with ``proximal`` = µ/2. With µ = 0 it is FedAvg. The server averages as in
FedAvg (`strategies/subgraphs/fedavg.py`).
"""

from __future__ import annotations

from pydantic import Field

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient


class FedProxClient(SubgraphClient):
    """Train with a proximal term that keeps parameters near the received ones."""

    class Settings(SubgraphClient.Settings):
        """Default of ``proximal`` for the method."""

        proximal: float = Field(default=5e-4, ge=0)
