"""Settings of models and optimisers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)


class GraphModelSettings(BaseModel):
    """A network on graphs, of any kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[Literal["graph", "ratings"]] = "graph"
    tasks: ClassVar[tuple[str, ...]] = ("node_classification", "link_prediction")
    own_class: ClassVar[str] = ""
    """Name of the field with the dotted path of a class of the user's; empty where there is none."""
    name: str

    @property
    def num_tensors(self) -> int | None:
        """Number of the network's named tensors; None where only the network itself knows it."""
        return None

    def __str__(self) -> str:
        """The network in words, such as ``GCN``, for errors."""
        return self.name.upper()


class StackedSettings(GraphModelSettings):
    """A graph network: `layers` convolutions of width `hidden`, ReLU and dropout after each, a linear classifier."""

    hidden: int = Field(default=128, ge=1)
    layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @property
    def num_tensors(self) -> int:
        """Number of the network's named parameters: a weight and a bias a layer."""
        return 2 * (self.layers + 1)

    def __str__(self) -> str:
        """The network in words, such as ``GCN of 2 layers``, for errors."""
        return f"{super().__str__()} of {self.layers} layers"


class ModelSettings(StackedSettings):
    """A stacked network by its convolution: GCN's, or GraphSAGE's with the mean aggregator."""

    name: Literal["gcn", "sage"]


class DecoupledSettings(StackedSettings):
    """Two GCNs, one over features and one over a structural encoding of width `encoding`, and one linear classifier."""

    name: Literal["decoupled"]
    encoding: int = Field(default=32, ge=2)

    @property
    def num_tensors(self) -> int:
        """Number of parameters: a weight and a bias for each layer of both, and for the classifier."""
        return 2 * (2 * self.layers + 1)


class GATSettings(StackedSettings):
    """A graph attention network: `heads` attention heads, which together have the width `hidden`.

    Attributes:
        heads: attention heads of a layer; a divisor of `hidden`.
        negative_slope: slope of the leaky ReLU of attention scores below zero.
        attention_dropout: probability with which a training step drops an attention coefficient.
    """

    name: Literal["gat"]
    heads: int = Field(default=8, ge=1)
    negative_slope: float = Field(default=0.2, ge=0, le=1)
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("heads")
    @classmethod
    def _heads_have_one_width(cls, value: int, info: ValidationInfo) -> int:
        hidden = info.data.get("hidden", value)
        if hidden % value:
            raise ValueError(f"must be a divisor of model.hidden, which is {hidden}")
        return value

    @property
    def num_tensors(self) -> int:
        """Number of parameters: four a layer, and the classifier's two."""
        return 4 * self.layers + 2


class GINSettings(StackedSettings):
    """A graph isomorphism network, whose convolutions are perceptrons of two layers over sums of neighbours.

    Attributes:
        eps: ε of equation 4.1, the additional weight of a node itself; its first value where it is trained.
        train_eps: train an ε for each layer.
    """

    name: Literal["gin"]
    eps: float = 0.0
    train_eps: bool = True

    @property
    def num_tensors(self) -> int:
        """Number of parameters: four a layer, or five with a trained ε, and the classifier's two."""
        return (5 if self.train_eps else 4) * self.layers + 2


class MLPSettings(StackedSettings):
    """A perceptron of `layers` hidden layers over each node's own features, without any edge."""

    name: Literal["mlp"]


class SGCSettings(GraphModelSettings):
    """A linear classifier of features that were propagated `hops` times."""

    name: Literal["sgc"]
    hops: int = Field(default=2, ge=0)

    @property
    def num_tensors(self) -> int:
        """Number of parameters: the weight and the bias."""
        return 2


class APPNPSettings(StackedSettings):
    """A perceptron of `layers` hidden layers whose outputs are propagated `hops` times.

    Attributes:
        layers: hidden layers of the perceptron.
        hops: steps of the power iteration, the paper's K.
        alpha: the teleport probability, the share of a node's own prediction in each step.
    """

    name: Literal["appnp"]
    layers: int = Field(default=1, ge=1)
    hops: int = Field(default=10, ge=0)
    alpha: float = Field(default=0.1, ge=0, le=1)


class GCNIISettings(StackedSettings):
    """A deep GCN whose layers mix in their first input, and mix their weights with the identity.

    Attributes:
        alpha: the share of the first hidden layer in each propagation.
        theta: strength of the weights; that of layer l is log(theta/l + 1).
    """

    name: Literal["gcnii"]
    hidden: int = Field(default=64, ge=1)
    layers: int = Field(default=8, ge=1)
    alpha: float = Field(default=0.1, ge=0, le=1)
    theta: float = Field(default=0.5, gt=0)

    @property
    def num_tensors(self) -> int:
        """Number of parameters: one a layer, and two of the first linear map and of the classifier."""
        return self.layers + 4


class ModuleSettings(GraphModelSettings):
    """Any ``torch.nn.Module``: the dotted path of its class (`target`, written ``_target_``), and further keys.

    The further keys are arguments of the class's constructor, in addition to the data's width and the task's output
    width.
    """

    model_config = ConfigDict(extra="allow")

    own_class: ClassVar[str] = "target"
    name: Literal["module"]
    target: str = Field(alias="_target_", min_length=1)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments that the settings give, by name."""
        return dict(self.model_extra or {})

    @model_serializer(mode="wrap")
    def _as_written(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The keys as the configuration writes them."""
        found: dict[str, Any] = serialise(self)
        target = found.pop("target", self.target)
        return {"name": found.pop("name"), "_target_": target, **found}

    def __str__(self) -> str:
        """The class's path, for errors."""
        return self.target


GraphModel = (
    ModelSettings
    | GATSettings
    | GINSettings
    | SGCSettings
    | MLPSettings
    | APPNPSettings
    | GCNIISettings
    | DecoupledSettings
    | ModuleSettings
)
"""The settings of a graph network."""

AnyGraphModel = Annotated[GraphModel, Field(discriminator="name")]
"""The settings of any graph network, told apart by `name`."""


class UserModelSettings(BaseModel):
    """A model that users train on local graphs, with embeddings of width `dim`.

    `neighbours` is the largest number of anonymous neighbour users by which a local graph is expanded; 0: it holds only
    the user and its items.

    Attributes:
        ranks: True where the model scores items and only the order of a user's items counts; else it predicts ratings.
        samples_items: True where its loss needs items that a user does not have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"
    tasks: ClassVar[tuple[str, ...]]
    ranks: ClassVar[bool]
    samples_items: ClassVar[bool]
    own_class: ClassVar[str] = ""
    name: str
    dim: int = Field(ge=1)
    neighbours: int = Field(default=0, ge=0)

    @property
    def constant_penalty(self) -> float:
        """Factor of the squared norm of each item's embedding that is added to the loss of all users together."""
        return 0.0


class RecommenderSettings(UserModelSettings):
    """A recommender on each user's local graph: embeddings of width `dim`, one layer of a graph network, dot product.

    `gnn` chooses how the user node aggregates its neighbours: attention (``gat``), their mean (``gcn``), a gated unit
    (``ggnn``), or not at all (``none``: matrix factorisation with biases).

    Squared norms are added to the loss of every rating: of both embeddings times `embedding_penalty`, of the user's
    hidden state times `hidden_penalty`, of both biases times `bias_penalty`.

    With `shrinkage` s each user's and each item's embedding, and each user's mean squared hidden state, have s times
    these penalties in addition, whatever the number of their ratings. So where there are few ratings, predictions are
    little more than biases.
    """

    tasks: ClassVar[tuple[str, ...]] = ("rating_prediction",)
    ranks: ClassVar[bool] = False
    samples_items: ClassVar[bool] = False
    name: Literal["recommender"]
    gnn: Literal["gat", "gcn", "ggnn", "none"] = "gat"
    dim: int = Field(default=32, ge=1)
    embedding_penalty: float = Field(default=0.05, ge=0)
    hidden_penalty: float = Field(default=0.05, ge=0)
    bias_penalty: float = Field(default=0.005, ge=0)
    shrinkage: float = Field(default=60.0, ge=0)

    @property
    def constant_penalty(self) -> float:
        """`shrinkage` times `embedding_penalty`."""
        return self.shrinkage * self.embedding_penalty


class FactorisationSettings(RecommenderSettings):
    """Matrix factorisation with biases: the recommender without a graph network.

    A user's hidden state is its embedding. Only the product of the user's and the item's factor matters, and so only
    the product of their penalties. There is therefore a single penalty.
    """

    name: Literal["factorisation"]  # type: ignore[assignment]  # the choice among model sections, not a value of theirs
    gnn: Literal["gat", "gcn", "ggnn", "none"] = "none"
    embedding_penalty: float = Field(default=0.1, ge=0)
    hidden_penalty: float = Field(default=0.0, ge=0)
    shrinkage: float = Field(default=40.0, ge=0)


AnyRatingModel = Annotated[RecommenderSettings | FactorisationSettings, Field(discriminator="name")]
"""The settings of any model that predicts ratings, told apart by `name`."""


class LightGCNSettings(UserModelSettings):
    """LightGCN on each user's local graph: embeddings of width `dim`, `layers` of propagation, dot product.

    With `attributes` an item's or user's embedding is an attention over its id embedding and its attributes. For each
    training item, `negatives` items that a user does not have are sampled. The squared norms of the pair's and the
    user's own embeddings, times `embedding_penalty`, are added to its loss. Neighbours enter from the second layer on.
    """

    tasks: ClassVar[tuple[str, ...]] = ("ranking",)
    ranks: ClassVar[bool] = True
    samples_items: ClassVar[bool] = True
    name: Literal["lightgcn"]
    dim: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=0)
    attributes: bool = False
    negatives: int = Field(default=1, ge=1)
    embedding_penalty: float = Field(default=1e-3, ge=0)


class OptimizerSettings(BaseModel):
    """Adam (Kingma and Ba, 2015). `decoupled` decays weights outside the gradient step (AdamW) instead of inside it.

    The difference matters even at 1e-6: inside the gradient, Adam rescales the decay of a weight without any other
    gradient (the row of a feature that a client never sees) to whole steps of the learning rate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["adam"]
    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=1e-6, ge=0)
    decoupled: bool = False
