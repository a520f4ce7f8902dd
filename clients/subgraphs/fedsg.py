"""FedSG's clients: a network of two extractors, each with an embedding on one random graph (Wang et al., "FedSG: a
personalized subgraph federated learning framework on multiple non-IID graphs", IEEE TETCI 2024).

Only the paper's description is public: topology and features are learnt by separate extractors, which are aggregated
separately. The comparison of extractors is our reading, after FED-PUB's functional embedding
(`similarity.functional`): every client draws the same random graph from the shared seed. An extractor's embedding is
its mean output over the graph's nodes. The topology extractor's input is their structural encoding, and the feature
extractor's input is features N(0, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from subfl_flower.clients.subgraphs.description import Description
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.convolution_probe import ConvolutionProbe
from subfl_flower.subgraphs.models.decoupled import TOPOLOGY
from subfl_flower.subgraphs.models.stacked_gnn import CONVOLUTION, Parameters
from subfl_flower.subgraphs.models.structure_encoding import structure_encoding
from subfl_flower.subgraphs.similarity.random_graph import stochastic_block_model
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.contract import Declared, RunContext
from subfl_flower.wire.payload import ArraySpec

FEATURE_EMBEDDING, TOPOLOGY_EMBEDDING = "feature_embedding", "topology_embedding"


class FedSGClient(SubgraphClient):
    """Send an embedding of each extractor together with the parameters."""

    protects_uploads = False

    class Settings(SubgraphClient.Settings):
        """Knobs of the aggregation, and of the random graph, a stochastic block model.

        Attributes:
            tau_topology, tau_feature: sharpness of the softmax over the extractors' similarities; 0: the plain average.
            classifier: the extractor whose matrix mixes the classifier; ``average`` is the mean of both matrices.
            random_blocks: blocks.
            random_block_nodes: nodes of a block.
            random_p_in: probability of an edge between two nodes of a block.
            random_p_out: probability of an edge between nodes of different blocks.
        """

        tau_topology: float = Field(default=5.0, ge=0)
        tau_feature: float = Field(default=20.0, ge=0)
        classifier: Literal["feature", "topology", "average"] = "average"
        weight_decay: float | None = Field(default=0.0, ge=0)
        random_blocks: int = Field(default=5, ge=1)
        random_block_nodes: int = Field(default=100, ge=1)
        random_p_in: float = Field(default=0.1, ge=0, le=1)
        random_p_out: float = Field(default=0.01, ge=0, le=1)

    settings: Settings

    networks = ("decoupled",)

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """The shared parameters, and the two embeddings [hidden]."""
        embedding = ArraySpec(run.initial["conv1.bias"].shape, "float32", remembered=True)
        return {**cls.shared(run), FEATURE_EMBEDDING: embedding, TOPOLOGY_EMBEDDING: embedding}

    def describes(self) -> Sequence[Description]:
        """The two embeddings."""
        settings, rng = self.settings, shared_generator(self.seed, "random graph")
        num_nodes = settings.random_blocks * settings.random_block_nodes
        edges = stochastic_block_model(
            settings.random_blocks, settings.random_block_nodes, settings.random_p_in, settings.random_p_out, rng
        )
        features = rng.standard_normal((num_nodes, self.cohort.num_features), dtype="float32")
        encoding = structure_encoding(edges, num_nodes, self.run.model.encoding)
        probes = [ConvolutionProbe(edges, inputs, self.cohort.device) for inputs in (features, encoding)]
        return (ExtractorDescription(*probes),)


class ExtractorDescription(Description):
    """Embeddings of both extractors.

    Args:
        of_features: the random graph with features.
        of_topology: the random graph with the structural encoding of its nodes.
    """

    reads_graphs: ClassVar[bool] = False

    def __init__(self, of_features: ConvolutionProbe, of_topology: ConvolutionProbe) -> None:
        self._of_features, self._of_topology = of_features, of_topology

    def of(self, effective: Parameters, chunk: GraphChunk, batch: Batch) -> dict[str, Tensor]:
        """The extractors' embeddings, each [C, hidden]."""
        return {
            FEATURE_EMBEDDING: self._of_features.embed(effective),
            TOPOLOGY_EMBEDDING: self._of_topology.embed(_as_convolutions(effective)),
        }


def _as_convolutions(parameters: Parameters) -> dict[str, Tensor]:
    """The topology extractor's parameters under the names of convolutions."""
    return {
        name.replace(TOPOLOGY, CONVOLUTION, 1): value for name, value in parameters.items() if name.startswith(TOPOLOGY)
    }
