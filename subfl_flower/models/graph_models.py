"""The graph networks by the names that ``model=`` knows them by."""

from __future__ import annotations

from subfl_flower.models.decoupled import StackedDecoupled
from subfl_flower.models.gcn import StackedGCN
from subfl_flower.models.sage import StackedSAGE
from subfl_flower.models.settings import GraphModelSettings
from subfl_flower.models.stacked_gnn import StackedGNN

_NETWORKS: dict[str, type[StackedGNN]] = {"gcn": StackedGCN, "sage": StackedSAGE, "decoupled": StackedDecoupled}


def stacked_gnn(settings: GraphModelSettings, num_features: int, num_outputs: int) -> StackedGNN:
    """The graph network that the settings are of.

    Args:
        settings: of one of the networks that `config.model` may name.
        num_features: input width.
        num_outputs: output width.
    """
    return _NETWORKS[settings.name](settings, num_features, num_outputs)
