"""The knobs of models and optimisers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class GraphModelSettings(BaseModel):
    """A graph network: `layers` convolutions of width `hidden`, ReLU and dropout after each, a linear classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[Literal["graph", "ratings"]] = "graph"
    tasks: ClassVar[tuple[str, ...]] = ("node_classification", "link_prediction")
    name: str
    hidden: int = Field(default=128, ge=1)
    layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @property
    def num_tensors(self) -> int:
        """How many parameters the network has by name: a weight and a bias a layer."""
        return 2 * (self.layers + 1)


class ModelSettings(GraphModelSettings):
    """Which convolution: GCN's, or GraphSAGE's with the mean aggregator."""

    name: Literal["gcn", "sage"]


class DecoupledSettings(GraphModelSettings):
    """Two GCNs, one over features and one over a structural encoding of width `encoding`, and one linear classifier."""

    name: Literal["decoupled"]
    encoding: int = Field(default=32, ge=2)

    @property
    def num_tensors(self) -> int:
        """A weight and a bias for each layer of both, and for the classifier."""
        return 2 * (2 * self.layers + 1)


AnyGraphModel = Annotated[ModelSettings | DecoupledSettings, Field(discriminator="name")]
"""The settings of any graph network, told apart by `name`."""


class RecommenderSettings(BaseModel):
    """A recommender on each user's local graph: embeddings of width `dim`, one layer of a graph network, dot product.

    `gnn` says what the user node makes of its neighbours: attention (``gat``), their mean (``gcn``), a gated unit
    (``ggnn``), or nothing (``none``: matrix factorisation with biases). `neighbours` is the largest number of anonymous
    neighbour users that a local graph is expanded by; 0: it holds the user and its items alone.

    Squared norms are added to the loss of every rating: of both embeddings times `embedding_penalty`, of the user's
    hidden state times `hidden_penalty`, of both biases times `bias_penalty`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"
    tasks: ClassVar[tuple[str, ...]] = ("rating_prediction",)
    samples_items: ClassVar[bool] = False
    name: Literal["recommender"]
    gnn: Literal["gat", "gcn", "ggnn", "none"] = "gat"
    dim: int = Field(default=32, ge=1)
    neighbours: int = Field(default=0, ge=0)
    embedding_penalty: float = Field(default=0.0, ge=0)
    hidden_penalty: float = Field(default=0.0, ge=0)
    bias_penalty: float = Field(default=0.0, ge=0)


class LightGCNSettings(BaseModel):
    """LightGCN on each user's local graph: embeddings of width `dim`, `layers` of propagation, dot product.

    With `attributes` an item's or user's embedding is an attention over what it is itself and its attributes.
    `negatives` items that a user does not have are sampled beside each training item, and the squared norms of the
    pair's and the user's own embeddings, times `embedding_penalty`, are added to its loss. `neighbours` is the largest
    number of anonymous neighbour users that a local graph is expanded by; they are heard from the second layer on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"
    tasks: ClassVar[tuple[str, ...]] = ("ranking",)
    samples_items: ClassVar[bool] = True
    name: Literal["lightgcn"]
    dim: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=0)
    attributes: bool = False
    negatives: int = Field(default=1, ge=1)
    embedding_penalty: float = Field(default=1e-3, ge=0)
    neighbours: int = Field(default=0, ge=0)


class OptimizerSettings(BaseModel):
    """Adam (Kingma and Ba, 2015). `decoupled` decays weights beside the gradient step (AdamW) instead of inside it.

    The difference matters even at 1e-6: inside the gradient, Adam rescales the decay of a weight without any other
    gradient (the row of a feature that a client never sees) to whole steps of the learning rate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["adam"]
    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=1e-6, ge=0)
    decoupled: bool = False
