"""FedSG's clients: a network of two extractors, and what each of them makes of one random graph (Wang et al., "FedSG: a
personalized subgraph federated learning framework on multiple non-IID graphs", IEEE TETCI 2024).

Only the paper's description is public: topology and features are learnt by extractors of their own, which are
aggregated apart. How extractors are compared is our reading, after FED-PUB's functional embedding
(`similarity.functional`): every client draws the same random graph from the shared seed. The topology extractor is
embedded by what it makes, on average over its nodes, of their structural encoding, and the feature extractor by what it
makes of features N(0, 1).
"""

from __future__ import annotations

from functools import cached_property

from pydantic import Field
from torch import Tensor

from clients.subgraph import SubgraphClient
from subfl_flower.models.chunk import GraphChunk
from subfl_flower.models.convolution_probe import ConvolutionProbe
from subfl_flower.models.decoupled import TOPOLOGY
from subfl_flower.models.stacked_gnn import CONVOLUTION, Parameters
from subfl_flower.models.structure_encoding import structure_encoding
from subfl_flower.seeding import shared_generator
from subfl_flower.similarity.random_graph import stochastic_block_model


class FedSGClient(SubgraphClient):
    """Sends an embedding of each of its extractors beside its parameters."""

    class Settings(SubgraphClient.Settings):
        """The random graph, a stochastic block model.

        Attributes:
            random_blocks: blocks.
            random_block_nodes: nodes of a block.
            random_p_in: probability of an edge between two nodes of a block.
            random_p_out: probability of an edge between nodes of different blocks.
        """

        random_blocks: int = Field(default=5, ge=1)
        random_block_nodes: int = Field(default=100, ge=1)
        random_p_in: float = Field(default=0.1, ge=0, le=1)
        random_p_out: float = Field(default=0.01, ge=0, le=1)

    settings: Settings

    networks = ("decoupled",)

    @property
    def extra_uploads(self) -> tuple[str, ...]:
        """The two embeddings."""
        return ("feature_embedding", "topology_embedding")

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        """The parameters, and the extractors' embeddings, each [C, hidden]."""
        of_features, of_topology = self._probes
        return {
            **super().uploads(shared, personal, effective, chunk),
            "feature_embedding": of_features.embed(effective),
            "topology_embedding": of_topology.embed(_as_convolutions(effective)),
        }

    @cached_property
    def _probes(self) -> tuple[ConvolutionProbe, ConvolutionProbe]:
        """The random graph with features, and with the structural encoding of its nodes."""
        settings, rng = self.settings, shared_generator(self.seed, "random graph")
        num_nodes = settings.random_blocks * settings.random_block_nodes
        edges = stochastic_block_model(
            settings.random_blocks, settings.random_block_nodes, settings.random_p_in, settings.random_p_out, rng
        )
        features = rng.standard_normal((num_nodes, self.cohort.num_features), dtype="float32")
        encoding = structure_encoding(edges, num_nodes, self.model_settings.encoding)
        device = self.cohort.device
        return ConvolutionProbe(edges, features, device), ConvolutionProbe(edges, encoding, device)


def _as_convolutions(parameters: Parameters) -> dict[str, Tensor]:
    """The topology extractor's parameters under the names of convolutions."""
    return {
        name.replace(TOPOLOGY, CONVOLUTION, 1): value for name, value in parameters.items() if name.startswith(TOPOLOGY)
    }
