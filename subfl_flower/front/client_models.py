"""Trained models of a run's clients as PyTorch modules, and their graphs as PyG's `Data`, read on use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from subfl_flower.commands.predictions.graph import without_roles
from subfl_flower.data.cleaning import RawGraph, clean
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.models.exported import ModelCard, read_model

_MASKS = {"train_mask": TRAIN, "val_mask": VALIDATION, "test_mask": TEST}

Item = TypeVar("Item")


class ClientModel(nn.Module):
    """A client's model of the round in which it validated best, as `subfl predict` applies it.

    Its outputs are those by which the run measured the client, without dropout, in training mode as well; its
    parameters have gradients, so that it can be trained further.

    Args:
        parameters: float32 by name, without client axis.
        card: origin and architecture of the model.

    Attributes:
        card: the card; ``card.classes`` names the outputs of a classifier, ``card.round`` and ``card.validation`` say
            when it was trained, ``card.transform`` how features are treated before the model reads them.
    """

    def __init__(self, parameters: Mapping[str, np.ndarray], card: ModelCard) -> None:
        super().__init__()
        self.card = card
        self._network = card.gnn
        for name, values in parameters.items():
            *path, last = name.split(".")
            owner: nn.Module = self
            for part in path:
                if part not in dict(owner.named_children()):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            tensor = torch.from_numpy(values.copy())
            if name in self._network.buffer_shapes:
                owner.register_buffer(last, tensor)
            else:
                owner.register_parameter(last, nn.Parameter(tensor))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Outputs for every node of a graph.

        Args:
            x: float ``[nodes, features]``, treated as in training; those of `RunResult.graphs` are.
            edge_index: integers ``[2, edges]``; edges count in both directions, each pair of nodes once.
            edge_weight: float ``[edges]``; None without weights.

        Returns:
            float32 ``[nodes, outputs]``, on the parameters' device: a logit a class; for link prediction an embedding.

        Raises:
            SubflError: the width of ``x`` is not the model's, an edge names no node, or a value is not finite.
        """
        if x.dim() != 2 or x.shape[1] != self.card.num_features:
            raise SubflError(f"x: the model reads [nodes, {self.card.num_features}] (found {list(x.shape)})")
        raw = RawGraph(
            features=x.detach().cpu().double().numpy(),
            edge_index=edge_index.cpu().numpy(),
            labels=None,
            edge_weight=None if edge_weight is None else edge_weight.detach().cpu().double().numpy(),
        )
        graph = without_roles(clean(raw, False, False, "x"))
        stacked = {name: value.unsqueeze(0) for name, value in (*self.named_parameters(), *self.named_buffers())}
        device = next(iter(stacked.values())).device
        outputs: Tensor = self._network(stacked, self._network.chunk([graph], device))[0]
        return outputs

    def extra_repr(self) -> str:
        """The client, its method and the data set."""
        return f"client {self.card.client}, {self.card.method} on {self.card.dataset}, {self.card.model}"


class UnknownClient(SubflError, KeyError):
    """A client without an entry."""

    def __str__(self) -> str:
        return str(self.args[0])


class ByClient(Mapping[int, Item]):
    """A mapping from client ids whose values are made on first use.

    Args:
        what: name of the values, for an error.
        clients: ids of the clients.
        make: makes the value of a client.
    """

    def __init__(self, what: str, clients: list[int], make: Callable[[int], Item]) -> None:
        self._what, self._clients, self._make = what, clients, make
        self._made: dict[int, Item] = {}

    def __getitem__(self, client: int) -> Item:
        if client not in self._made:
            if client not in self._clients:
                some = f"its clients are {self._clients[0]} to {self._clients[-1]}" if self._clients else "it has none"
                raise UnknownClient(f"the run has no {self._what} of client {client!r}; {some}")
            self._made[client] = self._make(client)
        return self._made[client]

    def __iter__(self) -> Iterator[int]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        return f"<{len(self)} {self._what}s by client>"


def client_models(files: Mapping[int, Path]) -> ByClient[ClientModel]:
    """The models in files of a run, by client."""
    return ByClient("model", sorted(files), lambda client: ClientModel(*read_model(files[client])))


def graph_as_data(graph: ClientGraph, names: np.ndarray | None) -> Data:
    """A client's graph as PyG's `Data`.

    Args:
        graph: the client's, as models read it.
        names: the source's id of each of its nodes; None where there are none.

    Returns:
        ``x`` float32 ``[nodes, features]``, ``edge_index`` int64 ``[2, edges]`` in both directions, ``node_id`` int64
        ``[nodes]`` (numbers in the whole graph), bool masks ``train_mask``, ``val_mask``, ``test_mask``; ``y`` int64
        ``[nodes]`` where there are labels, ``edge_weight`` float32 ``[edges]`` where there are weights, and the list
        ``name`` where nodes have ids.
    """
    features = graph.features
    dense = features if isinstance(features, np.ndarray) else features.toarray()
    found: dict[str, Any] = {"x": torch.from_numpy(dense), "edge_index": torch.from_numpy(graph.edge_index)}
    for key, values in (("y", graph.labels), ("edge_weight", graph.edge_weight), ("node_id", graph.node_ids)):
        if values is not None:
            found[key] = torch.from_numpy(values)
    found |= {mask: torch.from_numpy(graph.roles == role) for mask, role in _MASKS.items()}
    if names is not None:
        found["name"] = names.tolist()
    return Data(**found)
