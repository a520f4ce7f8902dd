"""Clients that also tell what their model does: a functional embedding on a shared random graph (FED-PUB, Section
3.2).
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from clients.subgraph import SubgraphClient
from subfl_flower.models.chunk import GraphChunk
from subfl_flower.models.gcn import Parameters
from subfl_flower.seeding import shared_generator
from subfl_flower.similarity.functional import FunctionalProbe
from subfl_flower.similarity.random_graph import stochastic_block_model


class FunctionalClient(SubgraphClient):
    """Sends its model's mean output on a random graph beside its parameters.

    The graph is a stochastic block model with features N(0, 1), made by every client from the shared seed, so that it
    need not travel. It is the client that embeds, because what it embeds with may be private.
    """

    class Settings(SubgraphClient.Settings):
        """`random_blocks` blocks of `random_block_nodes` nodes; edges with probability `random_p_in`,
        `random_p_out`.
        """

        random_blocks: int = Field(default=5, ge=1)
        random_block_nodes: int = Field(default=100, ge=1)
        random_p_in: float = Field(default=0.1, ge=0, le=1)
        random_p_out: float = Field(default=0.01, ge=0, le=1)

    settings: Settings
    extra_uploads: ClassVar[tuple[str, ...]] = ("functional_embedding",)

    @cached_property
    def _probe(self) -> FunctionalProbe:
        settings = self.settings
        rng = shared_generator(self.seed, "random graph")
        edges = stochastic_block_model(
            settings.random_blocks, settings.random_block_nodes, settings.random_p_in, settings.random_p_out, rng
        )
        num_nodes = settings.random_blocks * settings.random_block_nodes
        features = rng.standard_normal((num_nodes, self.cohort.num_features), dtype="float32")
        return FunctionalProbe(edges, features, self.cohort.device)

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        """The parameters, and the functional embedding [C, hidden] of the effective ones."""
        return {
            **super().uploads(shared, personal, effective, chunk),
            "functional_embedding": self._probe.embed(effective),
        }
