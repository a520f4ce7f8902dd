r"""The parameters of a FED-PUB client: weights, and a private mask for every weight matrix.

Equations of Baek et al., ICML 2023 (arXiv 2206.10206), in `clients/subgraphs/fedpub.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.subgraphs.compact_rows import Unreached, Uploads
from subfl_flower.clients.subgraphs.local_weights import LocalWeights, PenaltySettings, Shapes, Used
from subfl_flower.clients.subgraphs.pruning import Masked, Prunable, Pruning, kept_where_positive
from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.row_stack import RowStack
from subfl_flower.subgraphs.models.chunk import GraphChunk, features_within_reach
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters

WANTED = "wanted_features"
"""Name of the upload [features] that is 1 where a client wants rows of the first weight that it does not send."""


class MaskSettings(PenaltySettings, Protocol):
    """The knobs of masks; see `FedPUBClient.Settings`."""

    masks: bool
    mask_l1: float
    mask_lr: float
    variant: Literal["paper", "released"]


class MaskedWeights(LocalWeights):
    """Local weights with a mask for every weight matrix, none for biases; masks never leave the client.

    Args:
        model: the network.
        settings: the method's knobs.
        seed: of the initial model.
        device: where parameters are trained.
        graphs: the clients' graphs, as far as the task lets them be seen.
        lr: the optimiser's learning rate.
        skips: True where rows that training does not reach are not sent; else they are sent as received.
        pruning: the rule by which entries are zero outside of training.
    """

    def __init__(
        self,
        model: GraphNetwork[Any],
        settings: MaskSettings,
        seed: int,
        device: torch.device,
        graphs: Sequence[ClientGraph],
        lr: float,
        skips: bool,
        pruning: Pruning,
    ) -> None:
        super().__init__(model, settings, seed, device)
        self._settings, self._lr, self._skips, self._pruning = settings, lr, skips, pruning
        self._graphs = {graph.client_id: graph for graph in graphs}
        self._taught_by_chunk: dict[tuple[int, ...], _Taught] = {}
        self._prunable_by_chunk: dict[tuple[int, ...], Prunable] = {}

    @cached_property
    def _masks(self) -> Shapes:
        return (
            {_mask(name): self.model.shapes[name] for name in self.model.weight_matrices}
            if self._settings.masks
            else {}
        )

    @property
    def personal_shapes(self) -> Shapes:
        """The network's personal parameters, and the masks."""
        return {**super().personal_shapes, **self._masks}

    def initial_personal(self, chunk: GraphChunk) -> dict[str, Tensor]:
        """Ones; zeros in the first layer's rows of features that a client does not have.

        Such a row never meets data of the client. A zero there has no gradient, so the row stays pruned and need not
        travel.
        """
        masks = {name: torch.ones(len(chunk), *shape, device=self._device) for name, shape in self._masks.items()}
        if masks and self._sends_what_it_teaches:
            masks[self._first_mask] *= chunk.feature_support.unsqueeze(-1)
        return {**super().initial_personal(chunk), **masks}

    @property
    def by_input(self) -> tuple[str, ...]:
        """The first layer's weight and its mask."""
        return tuple(name for weight in super().by_input for name in (weight, _mask(weight)) if name in self._all_names)

    @property
    def _all_names(self) -> Collection[str]:
        return {*self.shared_shapes, *self.personal_shapes}

    def unreached_rows(self, weight_decay: float) -> Unreached:
        """Zero where their masks are; else only the released variant's masks, or none, leave them as received."""
        if self._sends_what_it_teaches:
            return "zero"
        penalised = self._settings.masks and self._settings.variant == "paper"
        return "trained" if penalised or weight_decay else "kept"

    @property
    def _sends_what_it_teaches(self) -> bool:
        known = self.model.feature_rows is not None
        return known and self._settings.masks and self._settings.variant == "paper"

    @property
    def _first_mask(self) -> str:
        """The mask whose rows belong to features, where the network has such rows."""
        return _mask(self.model.feature_rows or "")

    def _taught(self, chunk: GraphChunk) -> _Taught:
        """The rows of the first layer whose features training reaches."""
        if chunk.client_ids not in self._taught_by_chunk:
            hops = self.model.feature_hops
            assert hops is not None  # a network that knows its features' rows knows how far it reaches
            graphs = [self._graphs[client_id] for client_id in chunk.client_ids]
            reached = np.stack([features_within_reach(graph, hops) for graph in graphs])
            self._taught_by_chunk[chunk.client_ids] = _Taught.of(
                reached, chunk, self.model.shapes[self.model.feature_rows or ""][1]
            )
        return self._taught_by_chunk[chunk.client_ids]

    def effective(
        self, shared: Parameters, personal: Parameters, chunk: GraphChunk, used: Used | None = None
    ) -> dict[str, Tensor]:
        """θ ⊙ µ (eq. 2); outside of training pruned entries are zero."""
        effective = super().effective(shared, personal, chunk, used)
        if not self._settings.masks:
            return effective
        weights = {name: effective[name] for name in self.model.weight_matrices}
        masks = {name: personal[_mask(name)] for name in weights}
        if used is None:
            return effective | {name: value * masks[name] for name, value in weights.items()}
        clients = Masked(weights, masks, used.received, self._prunable(chunk))
        return effective | self._pruning.effective(clients, used.server_round)

    def _prunable(self, chunk: GraphChunk) -> Prunable:
        """The entries that may be pruned: those of the first layer's rows that training reaches, and of other layers.

        All entries where it is not known what training reaches.
        """
        if chunk.client_ids not in self._prunable_by_chunk:
            prunable = Prunable({}, [0] * len(chunk))
            if self._sends_what_it_teaches and self.model.feature_rows is not None:
                taught = self._taught(chunk)
                prunable = Prunable({self.model.feature_rows: taught.places}, taught.absent)
            self._prunable_by_chunk[chunk.client_ids] = prunable
        return self._prunable_by_chunk[chunk.client_ids]

    def add_penalty_gradients(
        self,
        gradients: Mapping[str, Tensor],
        shared: Parameters,
        personal: Parameters,
        received: Parameters,
        chunk: GraphChunk,
        server_round: int,
    ) -> None:
        """Add eq. 4's λ1 sign(µ) where training reaches, and 2 λ2 (θ - θ̄), in place."""
        if self._settings.variant == "released":
            return
        super().add_penalty_gradients(gradients, shared, personal, received, chunk, server_round)
        for name in self._masks:
            if name == self._first_mask:
                reached = self._taught(chunk).flags
                gradients[name].addcmul_(personal[name].sign(), reached, value=self._settings.mask_l1)
            else:
                gradients[name].add_(personal[name].sign(), alpha=self._settings.mask_l1)

    def learning_rates(self) -> dict[str, float]:
        """The masks' learning rate."""
        if self._settings.mask_lr == 1.0:
            return {}
        return {name: self._settings.mask_lr * self._lr for name in self._masks}

    def upload(self, shared: Parameters, effective: Parameters, chunk: GraphChunk) -> Uploads:
        """θ where it is not pruned and training reaches it, zero elsewhere; and flags of wanted feature rows.

        The released variant sends all of θ.
        """
        uploads = dict(super().upload(shared, effective, chunk))
        wanted = torch.zeros_like(chunk.feature_support)
        if self._settings.masks and self._settings.variant == "paper":
            first = self.model.feature_rows
            for name in self.model.weight_matrices:
                if name in shared and name != first:
                    uploads[name] = kept_where_positive(shared[name], effective[name].abs())
            if first is not None and first in shared:
                taught = self._taught(chunk)
                uploads[first] = taught.stack(shared[first], effective[first])
                wanted = taught.wanted if self._skips else wanted
        uploads[WANTED] = wanted.to(torch.uint8)
        return uploads

    def figures(self, effective: Parameters) -> dict[str, Tensor]:
        """``sparsity`` of each client."""
        if not self._settings.masks:
            return {}
        # NumPy compares, and counts flags without an axis, many times as fast as PyTorch.
        flags = [effective[name].flatten(1).cpu().numpy() != 0 for name in self.model.weight_matrices]
        clients = range(len(flags[0]))
        kept = torch.tensor([sum(np.count_nonzero(matrix[c]) for matrix in flags) for c in clients])
        return {"sparsity": 1 - kept / sum(math.prod(self.model.shapes[name]) for name in self.model.weight_matrices)}


@dataclass(frozen=True)
class _Taught:
    """The rows of the first layer whose features training reaches, of the clients of a chunk.

    Attributes:
        flags: float32 [C, R, 1], 1 for such rows, else 0, of the chunk's rows.
        places: their places among the chunk's rows, int64 [n] of each client.
        numbers: their numbers among all rows, ascending, int64 [n] of each client.
        wanted: bool [C, F], features that a client has and training does not reach.
        absent: entries of the rows whose features a client does not have [C].
    """

    flags: Tensor
    places: tuple[Tensor, ...]
    numbers: tuple[np.ndarray, ...]
    wanted: Tensor
    absent: tuple[int, ...]

    @classmethod
    def of(cls, reached: np.ndarray, chunk: GraphChunk, columns: int) -> _Taught:
        """The rows, of so many columns, that are flagged in `reached`, bool [C, F]."""
        device = chunk.feature_support.device
        own = reached if chunk.rows is None else np.take_along_axis(reached, chunk.rows.index.cpu().numpy(), axis=1)
        return cls(
            torch.from_numpy(own.astype(np.float32)).unsqueeze(-1).to(device),
            tuple(torch.from_numpy(np.flatnonzero(flags)).to(device) for flags in own),
            tuple(np.flatnonzero(flags) for flags in reached),
            chunk.feature_support & ~torch.from_numpy(reached).to(device),
            tuple(columns * int(missing) for missing in (~chunk.feature_support).sum(1)),
        )

    def stack(self, weight: Tensor, effective: Tensor) -> RowStack:
        """These rows of a weight [C, R, hidden], zero where its effective value is."""
        counts = np.array([len(numbers) for numbers in self.numbers])
        values = weight.new_empty(int(counts.sum()), weight.shape[2])
        for part, places, own, used in zip(values.split(counts.tolist()), self.places, weight, effective, strict=True):
            part.copy_(kept_where_positive(own.index_select(0, places), used.index_select(0, places).abs_()))
        return RowStack(values.cpu().numpy(), np.concatenate(self.numbers), counts, self.wanted.shape[1])


def _mask(name: str) -> str:
    return f"{name}.mask"
