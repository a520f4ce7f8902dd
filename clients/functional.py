"""Clients that also tell how they compare with others: by default a functional embedding on a shared random graph
(FED-PUB, Section 3.2).
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clients.subgraph import SubgraphClient
from subfl_flower.data.graph import TRAIN
from subfl_flower.errors import SubflError
from subfl_flower.models.chunk import GraphChunk
from subfl_flower.models.graph_network import Parameters, Probe
from subfl_flower.seeding import shared_generator
from subfl_flower.similarity.random_graph import erdos_renyi, stochastic_block_model


class FunctionalClient(SubgraphClient):
    """Sends its model's mean output on a random graph beside its parameters.

    The graph is made by every client from the shared seed, so that it need not travel. It is the client that embeds,
    because what it embeds with may be private.
    """

    class Settings(SubgraphClient.Settings):
        """What is sent for comparison.

        Attributes:
            similarity: what clients are compared by. ``functional`` sends an embedding; ``label`` sends the class
                frequencies of the training nodes, which are data: for comparison only; the others send nothing.
            random_graph: ``sbm``, a stochastic block model, and ``er``, an Erdős–Rényi graph, with features N(0, 1);
                ``one``, the block model with all features one; ``feature``, the same features without edges.
            random_blocks, random_block_nodes, random_p_in, random_p_out: of the block model; its blocks and their
                nodes, and the probability of an edge within and between blocks.
            random_nodes, random_probability: of the Erdős–Rényi graph; ``auto`` is the clients' mean number of nodes,
                and the probability that gives it their mean degree.
        """

        similarity: Literal["functional", "parameter", "gradient", "label", "none"] = "functional"
        random_graph: Literal["sbm", "er", "one", "feature"] = "sbm"
        random_blocks: int = Field(default=5, ge=1)
        random_block_nodes: int = Field(default=100, ge=1)
        random_p_in: float = Field(default=0.1, ge=0, le=1)
        random_p_out: float = Field(default=0.01, ge=0, le=1)
        random_nodes: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
        random_probability: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"

    settings: Settings

    @property
    def extra_uploads(self) -> tuple[str, ...]:
        """What clients are compared by, where the server cannot see it in the parameters."""
        sent = {"functional": ("functional_embedding",), "label": ("label_distribution",)}
        return sent.get(self.settings.similarity, ())

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        """The parameters; the functional embedding [C, width] of the effective ones, or label distributions."""
        uploads = super().uploads(shared, personal, effective, chunk)
        if self.settings.similarity == "functional":
            uploads["functional_embedding"] = self._probe.embed(effective)
        elif self.settings.similarity == "label":
            uploads["label_distribution"] = self._label_distributions(chunk)
        return uploads

    @cached_property
    def _probe(self) -> Probe:
        settings = self.settings
        rng = shared_generator(self.seed, "random graph")
        if settings.random_graph == "er":
            num_nodes, probability = self._erdos_renyi_size()
            edges = erdos_renyi(num_nodes, probability, rng)
        else:
            num_nodes = settings.random_blocks * settings.random_block_nodes
            edges = stochastic_block_model(
                settings.random_blocks, settings.random_block_nodes, settings.random_p_in, settings.random_p_out, rng
            )
        features = rng.standard_normal((num_nodes, self.cohort.num_features), dtype="float32")
        if settings.random_graph == "one":
            features[:] = 1
        elif settings.random_graph == "feature":
            edges = edges[:, :0]
        return self.model.probe(edges, features, self.cohort.device)

    def _erdos_renyi_size(self) -> tuple[int, float]:
        """N and p = d/(N-1), d the mean degree: SubPFed's, by the means that the server announces."""
        nodes, probability = self.settings.random_nodes, self.settings.random_probability
        if "auto" in (nodes, probability) and not {"mean_nodes", "mean_degree"} <= set(self.announced):
            raise SubflError(
                "method.random_nodes, method.random_probability: this strategy announces no means; give numbers"
            )
        num_nodes = max(2, round(float(self.announced["mean_nodes"]))) if nodes == "auto" else nodes
        if probability == "auto":
            return num_nodes, min(1.0, float(self.announced["mean_degree"]) / (num_nodes - 1))
        return num_nodes, probability

    def _label_distributions(self, chunk: GraphChunk) -> Tensor:
        """Class frequencies of the training nodes [C, classes]."""
        graphs = {graph.client_id: graph for graph in self.cohort.visible}
        counts = np.zeros((len(chunk), self.cohort.num_classes), dtype=np.float32)
        for row, client_id in enumerate(chunk.client_ids):
            graph = graphs[client_id]
            if graph.labels is None:
                raise SubflError("method.similarity=label: the data set has no labels")
            labels = graph.labels[(graph.roles == TRAIN) & (graph.labels >= 0)]
            counts[row] = np.bincount(labels, minlength=self.cohort.num_classes)
        return torch.from_numpy(counts / np.maximum(counts.sum(1, keepdims=True), 1)).to(self.cohort.device)
