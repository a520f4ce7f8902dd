"""Descriptions of a subgraph client: uploads besides its model, by which the server measures client similarity.

The default of FED-PUB (Baek et al., ICML 2023, Section 3.2) is a functional embedding: the model's mean output on a
random graph. Every client makes the graph from the shared seed, so that it need not travel. The client embeds, and not
the server, because its model may be private.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from threading import Lock
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters, Probe
from subfl_flower.subgraphs.similarity.random_graph import erdos_renyi, stochastic_block_model
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.contract import MethodSettings, RunContext
from subfl_flower.wire.payload import ArraySpec

EMBEDDING, LABELS = "functional_embedding", "label_distribution"
MEAN_NODES, MEAN_DEGREE = "mean_nodes", "mean_degree"
"""Names of the server's announcements: mean number of nodes, and mean degree, of all clients' graphs."""


class DescriptionSettings(MethodSettings):
    """Choice of the client similarity.

    Attributes:
        similarity: ``functional`` compares the models' mean outputs on a random graph, an embedding that clients send;
            ``parameter`` compares the models, ``gradient`` their change in the round, ``label`` the class frequencies
            of
            the training nodes, which are data: for comparison only. ``none`` is FedAvg's average for everyone.
        centred: True subtracts the mean over the clients from functional embeddings before they are compared, where
            there are at least four clients; false compares them as the papers do.
        random_graph: ``sbm``, a stochastic block model, and ``er``, an Erdős–Rényi graph, with features N(0, 1);
            ``one``, the block model with all features one; ``feature``, the same features without edges.
        random_blocks, random_block_nodes, random_p_in, random_p_out: of the block model: its blocks and their nodes,
            and the probability of an edge within and between blocks.
        random_nodes, random_probability: of the Erdős–Rényi graph; ``auto`` is the clients' mean number of nodes, and
            the probability that gives it their mean degree.
    """

    similarity: Literal["functional", "parameter", "gradient", "label", "none"] = "functional"
    centred: bool = True
    random_graph: Literal["sbm", "er", "one", "feature"] = "sbm"
    random_blocks: int = Field(default=5, ge=1)
    random_block_nodes: int = Field(default=100, ge=1)
    random_p_in: float = Field(default=0.1, ge=0, le=1)
    random_p_out: float = Field(default=0.01, ge=0, le=1)
    random_nodes: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
    random_probability: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"


class Description(ABC):
    """A part of a client that makes further uploads of its trained model.

    Attributes:
        reads_graphs: False where it does not compute on the clients' graphs; a chunk may then be without their inputs.
    """

    reads_graphs: ClassVar[bool] = True

    @abstractmethod
    def of(self, effective: Parameters, chunk: GraphChunk, batch: Batch) -> dict[str, Tensor]:
        """Further uploads of a chunk, each [C, ...], of the model as used outside training.

        Args:
            effective: the models; of the first layer they have the chunk's `rows`, the others being zero.
            chunk: the clients' graphs.
            batch: the round's orders.
        """


class SimilarityDescription(Description):
    """The upload that `DescriptionSettings.similarity` needs besides the model, if any.

    Args:
        settings: the method's, which extend `DescriptionSettings`.
        model: the network.
        cohort: the clients.
        seed: of the random graph.
    """

    reads_graphs: ClassVar[bool] = False

    def __init__(self, settings: DescriptionSettings, model: GraphNetwork[Any], cohort: Cohort, seed: int) -> None:
        self._settings, self._model, self._cohort, self._seed = settings, model, cohort, seed
        self._made: Probe | None = None
        self._making = Lock()

    @staticmethod
    def declared(run: RunContext) -> dict[str, ArraySpec]:
        """The upload by name."""
        if run.settings.similarity == "functional":
            assert run.network is not None
            return {EMBEDDING: ArraySpec((run.network.embedding_width,), "float32", remembered=True)}
        if run.settings.similarity == "label":
            return {LABELS: ArraySpec((run.shape.num_classes,), "float32", remembered=True)}
        return {}

    def of(self, effective: Parameters, chunk: GraphChunk, batch: Batch) -> dict[str, Tensor]:
        """The functional embedding [C, width] of the models, or label distributions [C, classes]."""
        if self._settings.similarity == "functional":
            return {EMBEDDING: self._probe(batch).embed(effective, chunk.rows)}
        return {LABELS: self._label_distributions(chunk)} if self._settings.similarity == "label" else {}

    def _probe(self, batch: Batch) -> Probe:
        """The random graph; its size may follow from the server's announcements, the same in every round."""
        with self._making:  # chunks may be worked side by side
            if self._made is None:
                self._made = self._make_probe(batch)
            return self._made

    def _make_probe(self, batch: Batch) -> Probe:
        settings, rng = self._settings, shared_generator(self._seed, "random graph")
        if settings.random_graph == "er":
            num_nodes, probability = self._erdos_renyi_size(batch)
            edges = erdos_renyi(num_nodes, probability, rng)
        else:
            num_nodes = settings.random_blocks * settings.random_block_nodes
            edges = stochastic_block_model(
                settings.random_blocks, settings.random_block_nodes, settings.random_p_in, settings.random_p_out, rng
            )
        features = rng.standard_normal((num_nodes, self._cohort.num_features), dtype="float32")
        if settings.random_graph == "one":
            features[:] = 1
        elif settings.random_graph == "feature":
            edges = edges[:, :0]
        return self._model.probe(edges, features, self._cohort.device)

    def _erdos_renyi_size(self, batch: Batch) -> tuple[int, float]:
        """N and p = d/(N-1) of SubPFed's graph, d being the mean degree that the server announces."""
        nodes, probability = self._settings.random_nodes, self._settings.random_probability
        if "auto" in (nodes, probability) and not {MEAN_NODES, MEAN_DEGREE} <= set(batch.announced):
            raise SubflError(
                "method.random_nodes, method.random_probability: this strategy announces no means; give numbers"
            )
        num_nodes = max(2, round(float(batch.announced[MEAN_NODES]))) if nodes == "auto" else nodes
        if probability == "auto":
            return num_nodes, min(1.0, float(batch.announced[MEAN_DEGREE]) / (num_nodes - 1))
        return num_nodes, probability

    def _label_distributions(self, chunk: GraphChunk) -> Tensor:
        """Class frequencies of the training nodes [C, classes]."""
        counts = np.zeros((len(chunk), self._cohort.num_classes), dtype=np.float32)
        for row, client_id in enumerate(chunk.client_ids):
            graph = self._graphs[client_id]
            if graph.labels is None:
                raise SubflError("method.similarity=label: the data set has no labels")
            labels = graph.labels[(graph.roles == TRAIN) & (graph.labels >= 0)]
            counts[row] = np.bincount(labels, minlength=self._cohort.num_classes)
        return torch.from_numpy(counts / np.maximum(counts.sum(1, keepdims=True), 1)).to(self._cohort.device)

    @cached_property
    def _graphs(self) -> dict[int, ClientGraph]:
        return {graph.client_id: graph for graph in self._cohort.visible}
