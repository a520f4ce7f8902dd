"""Knobs of the parts of methods on ratings; a method's settings join those that it needs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from subfl_flower.privacy.secure_sum import VALUE_BITS
from subfl_flower.wire.contract import MethodSettings

PerRound = Annotated[int, Field(ge=1)] | Literal["auto"] | None


class GradientSettings(MethodSettings):
    """Knobs of a user's loss, and of the server that averages gradients.

    Attributes:
        loss: ``mean`` over a user's ratings, or their ``sum``, which weights users by their number of ratings.
        users_per_round: users that are drawn for a round; null: the share in federation.fraction; ``auto``: so many
            that each user takes part in 40 rounds of the run on average, and at least 128.
        server_optimizer: what steps the averaged gradient.
        server_lr: its learning rate, which falls to `server_lr_final` times that over the run, along a cosine.
        network_lr: learning rate of all but the item table; every upload has gradients of these. null: `server_lr`.
        full_rate_noise: noise of a value in an upload, see `LdpSettings.relative_noise`, up to which the server steps
            at these rates. Under n times this noise its steps are an n-th. null: the rates do not depend on noise.
        table_weight_decay: weight decay of the item table, inside the gradient. The model's penalties grow with an
            item's number of ratings; this one does not, so it shrinks the rows of items with few ratings most.
        row_average: an item row's gradient is the sum over users divided by the number of `uploads` that hold the
            row, or by the number of all `participants` of the round.
        iterate_average: weight of the past in an exponential average of the parameters over rounds. The average is
            evaluated and kept; 0: the parameters themselves.
        evaluate_every: rounds between two evaluations of all users; the last round is always evaluated.
    """

    loss: Literal["mean", "sum"] = "sum"
    users_per_round: PerRound = 128
    server_optimizer: Literal["adam", "sgd"] = "adam"
    server_lr: float = Field(default=0.01, gt=0)
    server_lr_final: float = Field(default=1.0, gt=0, le=1)
    network_lr: float | None = Field(default=None, gt=0)
    full_rate_noise: float | None = Field(default=None, gt=0)
    table_weight_decay: float = Field(default=0.0, ge=0)
    row_average: Literal["uploads", "participants"] = "uploads"
    iterate_average: float = Field(default=0.0, ge=0, lt=1)
    evaluate_every: int = Field(default=10, ge=1)


class BiasSettings(MethodSettings):
    """Knobs of the biases of a model that predicts ratings.

    Attributes:
        biases: ``summed``: the server finds the items' biases before the first round, from masked sums of all users'
            ratings, and they stay; a user's bias follows from them. ``learnt``: by gradients, as all parameters.
            ``auto``: summed, unless `privacy` names a mechanism, which does not cover these sums.
        bias_shrinkage: how many ratings halve a summed bias, or a user's that follows from them.
    """

    biases: Literal["auto", "summed", "learnt"] = "auto"
    bias_shrinkage: float = Field(default=5.0, gt=0)


class NetworkSettings(MethodSettings):
    """Knob of a server that steps the weights of a graph network.

    Attributes:
        network_weight_decay: weight decay of these weights, inside the gradient.
    """

    network_weight_decay: float = Field(default=0.0, ge=0)


class StepSettings(MethodSettings):
    """Knobs of a user's own steps.

    Attributes:
        user_lr: learning rate of the personal parameters; null takes the optimiser's.
        user_weight_decay: weight decay of the personal parameters, inside the gradient of the sum over ratings. It
            shrinks those of users with few ratings most.
        user_steps: steps in a round, of the personal parameters or, where users train them all, of all parameters. In
            the first case the gradient of the last step is uploaded.
    """

    user_lr: float | None = Field(default=None, gt=0)
    user_weight_decay: float = Field(default=0.0, ge=0)
    user_steps: int = Field(default=1, ge=1)


class LocalTrainingSettings(StepSettings):
    """Knobs of users who train all parameters, for a server that takes the mean of their models.

    Attributes:
        local_lr: learning rate of the plain gradient steps of the shared parameters. Parameters that belong to no
            single item (attributes' values, attention) are stepped by the gradient of the mean over a user's items,
            whatever `loss` is, because every item contributes to them.
    """

    local_lr: float = Field(default=0.3, gt=0)
    user_lr: float | None = Field(default=0.01, gt=0)
    user_steps: int = Field(default=5, ge=1)


class PseudoItemSettings(MethodSettings):
    """Knobs of the protection of the rows that a user uploads.

    Attributes:
        pseudo_items: number of items without a rating whose gradients a user uploads, too; ``all``: all of these.
        pseudo_refresh: draw the pseudo items again each round. The server then finds the real ones, which come back;
            the knob exists to show that.
        pseudo_gradients: the normal variates of their gradients are drawn ``fresh`` each round, as in the paper, or
            ``kept`` for the run. Fresh ones average out over rounds: for the model, and also for a server that averages
            one user's uploads to see which items have a lasting gradient.
        pseudo_norms: pseudo gradients are ``normal`` as drawn, or scaled to the norms of real ones (``like_real``),
            whose tails are heavier than a normal's.
    """

    pseudo_items: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    pseudo_refresh: bool = False
    pseudo_gradients: Literal["fresh", "kept"] = "fresh"
    pseudo_norms: Literal["normal", "like_real"] = "like_real"


class RequestedRowsSettings(PseudoItemSettings):
    """Knob of the part of the item table that users are sent.

    Attributes:
        download: the `rows` that users send, which they ask for once, or the whole `table`, which reveals nothing of a
            user's items; ``auto`` takes the table where rows are more than half of it, and with `pseudo_refresh`.
    """

    download: Literal["auto", "rows", "table"] = "auto"

    @field_validator("download")
    @classmethod
    def _rows_are_known(cls, value: str, info: ValidationInfo) -> str:
        if value == "rows" and info.data.get("pseudo_refresh"):
            raise ValueError("with method.pseudo_refresh the server cannot know which rows are needed; must be table")
        return value


class ExpansionSettings(MethodSettings):
    """Knobs of the expansion of local graphs.

    Attributes:
        max_neighbours: largest number of neighbours that a user is told of; 0: no expansion, and no matcher.
        expansion_start: the first round with an expansion.
        expansion_every: rounds between two expansions.
        train_neighbours: train neighbours' embeddings as the user's own (an ablation of FedGNN's paper).
        embedding_noise: standard deviation of the normal noise on an embedding before it is sealed for the matcher.
    """

    max_neighbours: int = Field(default=0, ge=0)
    expansion_start: int = Field(default=1, ge=1)
    expansion_every: int = Field(default=50, ge=1)
    train_neighbours: bool = False
    embedding_noise: float = Field(default=0.0, ge=0)


class AuditSettings(MethodSettings):
    """Knob of an audit of uploads.

    Attributes:
        audit_users: number of users whose uploads are watched for leakage (simulation only); 0: none.
    """

    audit_users: int = Field(default=0, ge=0)


class MaskSettings(GradientSettings):
    """Knobs of masked uploads, of which the server sees only the sum.

    Attributes:
        masks: hide each upload; false: send it as it is, for comparison.
        fraction_bits: fractional bits of the fixed-point numbers that are summed under masks.
        mask_degree: number of other participants with whom a user shares masks; all of them must collude with the
            server to see its upload.
    """

    row_average: Literal["uploads", "participants"] = "participants"
    masks: bool = Field(default=True, validate_default=True)
    fraction_bits: int = Field(default=24, ge=8, lt=VALUE_BITS)
    mask_degree: int = Field(default=2, ge=2, multiple_of=2)

    @field_validator("masks")
    @classmethod
    def _nobody_counts_rows(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("row_average") == "uploads":
            raise ValueError("must be false with row_average=uploads: a masked upload does not show its rows")
        return value


Share = Annotated[float, Field(ge=0, le=1)]


class ClusterSettings(MethodSettings):
    """Knobs of clusters of users.

    Attributes:
        clusters: k.
        cluster_start: the first round before which users are clustered; until then there is only the global model.
        cluster_every: r, rounds between two clusterings.
        cluster_pull: share by which a cluster's model is drawn to the global one after each round. 0: not at all, as in
            PerFedRec's paper; 1: all users have the global model, as in FedAvg.
        selection: participation in a round. `representative`: users nearest to the centroids first, each cluster in
            proportion to its size, the rest at random; `size`: drawn in proportion to clusters' sizes; `random`.
        representative_share: share of a round's users that are representatives.
        agreeing: share of the users who agree to send an embedding, drawn once; the others have no cluster.
        cluster_noise: standard deviation of the normal noise on each coordinate of the embedding, whose length is 1.
    """

    clusters: int = Field(default=3, ge=1)
    cluster_start: int = Field(default=60, ge=1)
    cluster_every: int = Field(default=20, ge=1)
    cluster_pull: float = Field(default=0.1, ge=0, le=1)
    selection: Literal["representative", "size", "random"] = "representative"
    representative_share: Share = 0.5
    agreeing: Share = 1.0
    cluster_noise: float = Field(default=0.0, ge=0)


class MixtureSettings(LocalTrainingSettings):
    """Knobs of a mixture of the global, the cluster's and the user's own model.

    They stand a level deeper than other settings because the own model is made by local training.

    Attributes:
        own_lr: learning rate that replaces `local_lr` in the steps that make the own model, where one user's sampled
            items do not average out; 0: only personal parameters are stepped.
        combination: mix the models' ``scores`` or their ``parameters``.
        weights: weights of the global, the cluster's and the own model: ``equal``, three numbers that sum to 1, or
            ``validation`` (of scores only), those that rank a user's validation item highest among all items. With
            ``validation`` the validation figures are too good; the test figures are not.
    """

    own_lr: float = Field(default=0.01, ge=0)
    combination: Literal["scores", "parameters"] = "scores"
    weights: Literal["equal", "validation"] | tuple[Share, Share, Share] = "equal"

    @field_validator("weights")
    @classmethod
    def _shares_of_one(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, tuple) and abs(sum(value) - 1) > 1e-6:
            raise ValueError("three weights must sum to 1")
        if value == "validation" and info.data.get("combination") == "parameters":
            raise ValueError("must be equal or three numbers where parameters are mixed")
        return value
