"""FedPer: Arivazhagan et al., "Federated learning with personalization layers", 2019: the clients' side.

A client trains all layers and keeps the last one. The server averages the others as in FedAvg
(`strategies/subgraphs/fedavg.py`). With no personal layer it is FedAvg.
"""

from __future__ import annotations

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient


class FedPerClient(SubgraphClient):
    """Keep the classifier personal."""

    class Settings(SubgraphClient.Settings):
        """Default of ``personal_layers`` for the method."""

        personal_layers: tuple[str, ...] = ("classifier",)
