"""Central training of a recommender with a graph network: the bound of FedGNN."""

from __future__ import annotations

from pydantic import Field

from subfl_flower.clients.recommendation.central_mf import CentralMFClient


class CentralGNNClient(CentralMFClient):
    """Central training of a recommender with a graph network.

    It stands a level deeper than other clients because it differs from central training of any recommender in defaults
    alone.
    """

    class Settings(CentralMFClient.Settings):
        """Defaults for large batches, and weight decay of the graph network."""

        batch_users: int = Field(default=1000, ge=1)
        network_weight_decay: float = Field(default=0.003, ge=0)
