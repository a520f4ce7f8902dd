"""The graph networks by their names in ``model=``."""

from __future__ import annotations

from typing import Any

from subfl_flower.models.settings import GraphModelSettings
from subfl_flower.subgraphs.models.decoupled import StackedDecoupled
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.subgraphs.models.graph_network import GraphNetwork
from subfl_flower.subgraphs.models.module_network import ModuleNetwork
from subfl_flower.subgraphs.models.networks.appnp import StackedAPPNP
from subfl_flower.subgraphs.models.networks.gat import StackedGAT
from subfl_flower.subgraphs.models.networks.gcnii import StackedGCNII
from subfl_flower.subgraphs.models.networks.gin import StackedGIN
from subfl_flower.subgraphs.models.networks.mlp import StackedMLP
from subfl_flower.subgraphs.models.networks.sgc import StackedSGC
from subfl_flower.subgraphs.models.sage import StackedSAGE

_NETWORKS: dict[str, Any] = {
    "gcn": StackedGCN,
    "sage": StackedSAGE,
    "gat": StackedGAT,
    "gin": StackedGIN,
    "sgc": StackedSGC,
    "mlp": StackedMLP,
    "appnp": StackedAPPNP,
    "gcnii": StackedGCNII,
    "decoupled": StackedDecoupled,
    "module": ModuleNetwork,
}


def graph_network(settings: GraphModelSettings, num_features: int, num_outputs: int) -> GraphNetwork[Any]:
    """The graph network of the settings.

    Args:
        settings: of one of the networks that `config.model` may name.
        num_features: input width.
        num_outputs: output width.

    Raises:
        SubflError: these settings make no network.
    """
    network: GraphNetwork[Any] = _NETWORKS[settings.name](settings, num_features, num_outputs)
    return network


def network_class(settings: GraphModelSettings) -> type[GraphNetwork[Any]]:
    """The class of the settings' network."""
    found: type[GraphNetwork[Any]] = _NETWORKS[settings.name]
    return found
