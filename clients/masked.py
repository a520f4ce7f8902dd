r"""FED-PUB's clients: private, sparse masks on the weights (Baek et al., ICML 2023, Section 3.3).

The GCN computes with :math:`\theta \odot \mu`. The local objective (eq. 4) is

.. math:: L(\theta \odot \mu) + \lambda_1 \lVert \mu \rVert_1 + \lambda_2 \lVert \theta - \bar\theta_i \rVert_2^2 .

Two knobs make masks sparse and act on different things: ``mask_l1`` (:math:`\lambda_1`) is the weight of the penalty
and moves the mask while training; ``mask_threshold`` decides which entries count as zero whenever the model is
evaluated, embedded or sent. A pruned weight does not travel.

Eq. 4 has no weight decay, and neither has this client unless told otherwise. It is no detail: Adam makes whole steps of
even the smallest decay wherever the data say nothing, and so destroys what other clients know. For the same reason the
penalty leaves alone the rows of the first layer whose feature no training node can see through the GCN. Such rows
stay as received and are not sent back; rows of features that a client does not have at all travel in neither direction.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from clients.functional import FunctionalClient
from clients.subgraph import Shapes
from subfl_flower.models.chunk import GraphChunk, features_within_reach
from subfl_flower.models.stacked_gnn import Parameters


class MaskedClient(FunctionalClient):
    """Trains a mask µ beside every weight matrix θ; masks never leave the client."""

    class Settings(FunctionalClient.Settings):
        """The masks.

        Attributes:
            masks: false trains without masks: the ablation, and plain functional similarity.
            mask_l1: weight of the sum of absolute mask entries.
            mask_threshold: entries with no larger absolute value are zero outside training.
            mask_lr: learning rate of the masks, as a multiple of the optimiser's.
            variant: ``paper`` as described; ``released`` as the authors' public code behaves: neither penalty has a
                gradient, and masks start at one for features that a client does not have, too.
        """

        masks: bool = True
        mask_l1: float = Field(default=5e-6, ge=0)
        mask_threshold: float = Field(default=0.7, ge=0)
        mask_lr: float = Field(default=1.0, gt=0)
        weight_decay: float | None = Field(default=0.0, ge=0)
        variant: Literal["paper", "released"] = "paper"

    settings: Settings

    @property
    def extra_uploads(self) -> tuple[str, ...]:
        """`wanted_features` beside what clients are compared by."""
        return (*super().extra_uploads, "wanted_features")

    @staticmethod
    def _mask(name: str) -> str:
        return f"{name}.mask"

    def personal_shapes(self) -> Shapes:
        """A mask for every weight matrix, none for biases."""
        return {**super().personal_shapes(), **self._mask_shapes}

    @cached_property
    def _mask_shapes(self) -> Shapes:
        if not self.settings.masks:
            return {}
        return {self._mask(name): self.model.shapes[name] for name in self.model.weight_matrices}

    def initial_personal(self, chunk: GraphChunk) -> dict[str, Tensor]:
        """Ones; zeros in the first layer's rows of features that a client does not have.

        Such a row never meets data of the client. A zero there has no gradient, so the row stays pruned and need not
        travel.
        """
        masks = {
            name: torch.ones(len(chunk), *shape, device=self.cohort.device) for name, shape in self._mask_shapes.items()
        }
        if masks and self._sends_what_it_teaches:
            masks[self._first_mask] *= chunk.feature_support.unsqueeze(-1)
        return {**super().initial_personal(chunk), **masks}

    @property
    def _sends_what_it_teaches(self) -> bool:
        known = self.model.feature_rows is not None
        return known and self.settings.masks and self.settings.variant == "paper"

    @property
    def _first_mask(self) -> str:
        """The mask whose rows belong to features, where the network has such rows."""
        return self._mask(self.model.feature_rows or "")

    def _taught(self, chunk: GraphChunk) -> Tensor:
        """[C, features]: 1 for the features that training reaches, else 0."""
        if chunk.client_ids not in self._taught_by_chunk:
            assert self.model.reach is not None  # a network that knows its features' rows knows how far it reaches
            position = {client_id: p for p, client_id in enumerate(self.cohort.client_ids)}
            graphs = [self.cohort.visible[position[client_id]] for client_id in chunk.client_ids]
            taught = [features_within_reach(graph, self.model.reach + 1) for graph in graphs]
            self._taught_by_chunk[chunk.client_ids] = torch.from_numpy(np.stack(taught).astype(np.float32)).to(
                self.cohort.device
            )
        return self._taught_by_chunk[chunk.client_ids]

    @cached_property
    def _taught_by_chunk(self) -> dict[tuple[int, ...], Tensor]:
        return {}

    def effective(self, shared: Parameters, personal: Parameters, *, pruned: bool) -> Parameters:
        """θ ⊙ µ, entries below the threshold being zero where `pruned`."""
        effective = dict(super().effective(shared, personal, pruned=pruned))
        if self.settings.masks:
            for name in self.model.weight_matrices:
                mask = personal[self._mask(name)]
                if pruned:
                    mask = F.hardshrink(mask, self.settings.mask_threshold)
                effective[name] = effective[name] * mask
        return effective

    def add_penalty_gradients(
        self,
        gradients: dict[str, Tensor],
        shared: Parameters,
        personal: Parameters,
        received: Parameters,
        chunk: GraphChunk,
        server_round: int,
    ) -> None:
        """λ1 sign(µ) where training reaches, and 2 λ2 (θ - θ̄), in place."""
        if self.settings.variant == "released":
            return
        super().add_penalty_gradients(gradients, shared, personal, received, chunk, server_round)
        for name in self._mask_shapes:
            if name == self._first_mask:
                reached = self._taught(chunk).unsqueeze(-1)
                gradients[name].addcmul_(personal[name].sign(), reached, value=self.settings.mask_l1)
            else:
                gradients[name].add_(personal[name].sign(), alpha=self.settings.mask_l1)

    def learning_rates(self) -> dict[str, float]:
        """The masks' own learning rate."""
        if self.settings.mask_lr == 1.0:
            return {}
        return {name: self.settings.mask_lr * self.optimizer.lr for name in self._mask_shapes}

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        """θ where the mask keeps it and training reaches it, zero elsewhere; the functional embedding of the masked
        model; and ``wanted_features`` [C, features], 1 where the client wants rows that it does not send itself.
        """
        uploads = super().uploads(shared, personal, effective, chunk)
        if self.settings.masks:
            for name in self.model.weight_matrices:
                if name in shared:
                    uploads[name] = shared[name] * (effective[name] != 0)
        wanted = torch.zeros_like(chunk.feature_support)
        first = self.model.feature_rows
        if self._sends_what_it_teaches and first is not None and first in shared:
            taught = self._taught(chunk)
            uploads[first] *= taught.unsqueeze(-1)
            wanted = chunk.feature_support & (taught == 0)
        uploads["wanted_features"] = wanted.to(torch.uint8)
        return uploads

    def extra_metrics(self, effective: Parameters) -> dict[str, Tensor]:
        """`sparsity`: the share of the weight matrices' effective entries that are zero."""
        if not self.settings.masks:
            return {}
        weights = [effective[name].flatten(1) for name in self.model.weight_matrices]
        kept = torch.stack([torch.count_nonzero(weight, dim=1) for weight in weights]).sum(0)
        return {"sparsity": 1 - kept / sum(weight.shape[1] for weight in weights)}
