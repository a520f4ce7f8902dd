"""Settings of disturbances."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

_AMOUNTS = (
    *("feature_noise", "feature_sparsity", "edge_noise", "edge_sparsity", "edge_injection"),
    *("label_noise", "label_sparsity"),
)


class DisturbanceSettings(BaseModel):
    """Disturbances of clients' graphs after the partition, each drawn with ``partition.seed`` for each client.

    Noise and sparsity are those of OpenFGL (Li et al. 2024, arXiv 2408.16288), with noise and sparsity of edges
    apart. The injection of edges is the structure Non-iid split of AdaFGL (Li et al., ICDE 2024, arXiv 2401.11750) in
    its random form, with an exact number of clients of either kind. Labels of validation and test nodes never change.

    Attributes:
        feature_noise: standard deviation of Gaussian noise that is added to each entry of the features, in their units
            as models read them.
        feature_sparsity: share of each node's nonzero features that are set to zero.
        edge_noise: number of random edges that are added, as a share of the client's edges.
        edge_sparsity: share of the client's edges that are removed.
        edge_injection: number of edges that are added between nodes of one class or of two, as a share of the client's
            edges.
        homophilous: share of the disturbed clients whose injected edges join nodes of one class; of two in the others.
        label_noise: share of the training labels that are replaced by another class, each other one as likely.
        label_sparsity: share of the training nodes that lose their label and role; at least one keeps them.
        clients: share of the clients that are disturbed, at least one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    feature_noise: float = Field(default=0.0, ge=0)
    feature_sparsity: float = Field(default=0.0, ge=0, le=1)
    edge_noise: float = Field(default=0.0, ge=0, le=10)
    edge_sparsity: float = Field(default=0.0, ge=0, le=1)
    edge_injection: float = Field(default=0.0, ge=0, le=10)
    homophilous: float = Field(default=0.5, ge=0, le=1)
    label_noise: float = Field(default=0.0, ge=0, le=1)
    label_sparsity: float = Field(default=0.0, ge=0, le=1)
    clients: float = Field(default=1.0, gt=0, le=1)

    @property
    def active(self) -> bool:
        """True where anything is disturbed."""
        return any(getattr(self, name) > 0 for name in _AMOUNTS)
