r"""FED-PUB: Baek et al., "Personalized subgraph federated learning", ICML 2023 (arXiv 2206.10206): the clients' side.

A client trains a private mask µ for every weight matrix θ (Section 3.3). The paper's equations on this side:

- Eq. 2, the personalised problem: the GCN computes with :math:`\theta \odot \mu` (`MaskedWeights.effective`), where θ
  starts from the average that the server sent.
- Eq. 3, that average: `strategies/subgraphs/fedpub.py`. It compares the functional embeddings that clients make in
  `clients/subgraphs/description.py`.
- Eq. 4, the local objective, whose gradients are in `MaskedWeights.add_penalty_gradients`:

.. math:: L(\theta \odot \mu) + \lambda_1 \lVert \mu \rVert_1 + \lambda_2 \lVert \theta - \bar\theta_i \rVert_2^2 .

Two knobs make masks sparse. ``mask_l1`` (:math:`\lambda_1`) is the weight of the penalty, and moves the mask in
training. ``mask_threshold`` decides which entries count as zero whenever the model is evaluated, embedded or sent. A
pruned weight does not travel. :math:`\lambda_2` is ``proximal``.

Eq. 4 has no weight decay, and by default this client has none. This matters: where the data give no gradient, Adam
makes whole steps of even the smallest decay, and so destroys what other clients know. For the same reason the penalty
excludes the rows of the first layer whose feature no training node can see through the GCN. Such rows stay as received
and are not sent back. Rows of features that a client does not have at all travel in neither direction.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from subfl_flower.clients.subgraphs.compact_rows import Unreached, Uploads
from subfl_flower.clients.subgraphs.description import Description, DescriptionSettings, SimilarityDescription
from subfl_flower.clients.subgraphs.local_weights import LocalWeights, Shapes
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.row_stack import RowStack
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.subgraphs.models.choices import network_class
from subfl_flower.subgraphs.models.chunk import GraphChunk, features_within_reach
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.wire.contract import AbsentFeatures, Declared, RunContext
from subfl_flower.wire.payload import ArraySpec

WANTED = "wanted_features"
"""Name of the upload [features] that is 1 where a client wants rows of the first weight that it does not send."""


class FedPUBClient(SubgraphClient):
    """Train masked models, and embed them."""

    class Settings(DescriptionSettings, SubgraphClient.Settings):
        """Knobs of the masks, and of the aggregation.

        Attributes:
            tau: sharpness of the softmax over similarities; ``auto`` is 3 for disjoint and 5 for overlapping subgraphs.
            community_threshold: a client averages only with itself and clients of a larger similarity; 0.5 gives
                explicit communities (App. C.8). null: with everyone.
            missing: ``owners`` averages a weight over the clients that sent it, ``zero`` counts it as zero.
            masks: false trains without masks, for the ablation, and for plain functional similarity.
            mask_l1: λ1, weight of the sum of absolute mask entries.
            mask_threshold: entries with no larger absolute value are zero outside training.
            mask_lr: learning rate of the masks, as a multiple of the optimiser's.
            absent_features: default of ``wire.absent_features``. ``skip``: rows of features that a client does not
                have travel in neither direction. ``send``: the client returns such rows as it was sent them, and they
                count in averages.
            variant: ``paper`` as described; ``released`` as the authors' public code behaves: neither penalty has a
                gradient, and masks start at one also for features that a client does not have.
        """

        tau: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
        community_threshold: float | None = Field(default=None, ge=-1, le=1)
        missing: Literal["owners", "zero"] = "owners"
        masks: bool = True
        mask_l1: float = Field(default=5e-6, ge=0)
        mask_threshold: float = Field(default=0.7, ge=0)
        mask_lr: float = Field(default=1.0, gt=0)
        weight_decay: float | None = Field(default=0.0, ge=0)
        proximal: float = Field(default=1e-3, ge=0)
        absent_features: AbsentFeatures = "skip"
        variant: Literal["paper", "released"] = "paper"

    settings: Settings

    @classmethod
    def skips_absent(cls, run: RunContext) -> bool:
        """True where masks make such rows zero."""
        known = run.network is not None and run.network.feature_rows is not None
        return run.skips_absent and known and run.settings.masks and run.settings.variant == "paper"

    @classmethod
    def check_skipping(cls, model: Any, settings: Any, optimizer: OptimizerSettings, method: str) -> None:
        """Refuse to skip rows of absent features where no mask makes them zero.

        Raises:
            SubflError: there are no masks, or the variant's begin at one.
        """
        if network_class(model).feature_rows is None:
            raise SubflError(f"wire.absent_features: only send is allowed, because model={model.name} has no such rows")
        if not settings.masks or settings.variant != "paper":
            raise SubflError("wire.absent_features: skip needs method.masks=true and method.variant=paper")

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """The shared parameters, the embedding, and flags of the feature rows that a client wants."""
        wanted = {WANTED: ArraySpec((run.shape.num_features,), "uint8")}
        return {**cls.shared(run), **SimilarityDescription.declared(run), **wanted}

    @classmethod
    def metrics(cls, run: RunContext) -> dict[str, Metric]:
        """The task's figures, and ``sparsity``: the share of the weight matrices' effective entries that are zero."""
        return {**super().metrics(run), "sparsity": Metric(SHARE.low, SHARE.high, by_client=True, averaged=True)}

    def local_weights(self) -> LocalWeights:
        """Masked weights."""
        return MaskedWeights(
            self.model,
            self.settings,
            self.seed,
            self.cohort.device,
            self.cohort.visible,
            self.optimizer.lr,
            self.run.skips_absent,
        )

    def describes(self) -> Sequence[Description]:
        """The embedding."""
        return (SimilarityDescription(self.settings, self.model, self.cohort, self.seed),)


class FedPUBReleasedClient(FedPUBClient):
    """The variant of the authors' public code.

    It stands a level deeper than other clients because it differs from FED-PUB in defaults alone.
    """

    class Settings(FedPUBClient.Settings):
        """The defaults of the authors' public code."""

        missing: Literal["owners", "zero"] = "zero"
        weight_decay: float | None = Field(default=None, ge=0)
        mask_threshold: float = Field(default=1e-3, ge=0)
        random_p_out: float = Field(default=0.0, ge=0, le=1)
        variant: Literal["paper", "released"] = "released"


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
    """

    def __init__(
        self,
        model: GraphNetwork[Any],
        settings: FedPUBClient.Settings,
        seed: int,
        device: torch.device,
        graphs: Sequence[ClientGraph],
        lr: float,
        skips: bool,
    ) -> None:
        super().__init__(model, settings, seed, device)
        self._settings, self._lr, self._skips = settings, lr, skips
        self._graphs = {graph.client_id: graph for graph in graphs}
        self._taught_by_chunk: dict[tuple[int, ...], _Taught] = {}

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
            assert self.model.reach is not None  # a network that knows its features' rows knows how far it reaches
            graphs = [self._graphs[client_id] for client_id in chunk.client_ids]
            reached = np.stack([features_within_reach(graph, self.model.reach + 1) for graph in graphs])
            self._taught_by_chunk[chunk.client_ids] = _Taught.of(reached, chunk)
        return self._taught_by_chunk[chunk.client_ids]

    def effective(self, shared: Parameters, personal: Parameters, *, pruned: bool) -> dict[str, Tensor]:
        """θ ⊙ µ (eq. 2); entries below the threshold are zero where `pruned`."""
        effective = super().effective(shared, personal, pruned=pruned)
        if self._settings.masks:
            for name in self.model.weight_matrices:
                mask = personal[_mask(name)]
                if pruned:
                    mask = F.hardshrink(mask, self._settings.mask_threshold)
                effective[name] = effective[name] * mask
        return effective

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
        """θ where the mask keeps it and training reaches it, zero elsewhere; and flags of wanted feature rows."""
        uploads = dict(super().upload(shared, effective, chunk))
        first = self.model.feature_rows if self._sends_what_it_teaches else None
        for name in self.model.weight_matrices if self._settings.masks else ():
            if name in shared and name != first:
                uploads[name] = shared[name].masked_fill(effective[name] == 0, 0)
        wanted = torch.zeros_like(chunk.feature_support)
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
        flags = [(effective[name] != 0).flatten(1).cpu().numpy() for name in self.model.weight_matrices]
        # Of flags and without an axis, NumPy counts many times as fast as PyTorch.
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
    """

    flags: Tensor
    places: tuple[Tensor, ...]
    numbers: tuple[np.ndarray, ...]
    wanted: Tensor

    @classmethod
    def of(cls, reached: np.ndarray, chunk: GraphChunk) -> _Taught:
        """The rows that are flagged in `reached`, bool [C, F]."""
        device = chunk.feature_support.device
        own = reached if chunk.rows is None else np.take_along_axis(reached, chunk.rows.index.cpu().numpy(), axis=1)
        return cls(
            torch.from_numpy(own.astype(np.float32)).unsqueeze(-1).to(device),
            tuple(torch.from_numpy(np.flatnonzero(flags)).to(device) for flags in own),
            tuple(np.flatnonzero(flags) for flags in reached),
            chunk.feature_support & ~torch.from_numpy(reached).to(device),
        )

    def stack(self, weight: Tensor, effective: Tensor) -> RowStack:
        """These rows of a weight [C, R, hidden], zero where its effective value is."""
        counts = np.array([len(numbers) for numbers in self.numbers])
        values = weight.new_empty(int(counts.sum()), weight.shape[2])
        for part, places, own, used in zip(values.split(counts.tolist()), self.places, weight, effective, strict=True):
            torch.index_select(own, 0, places, out=part)
            part.masked_fill_(used.index_select(0, places) == 0, 0)
        return RowStack(values.cpu().numpy(), np.concatenate(self.numbers), counts, self.wanted.shape[1])


def _mask(name: str) -> str:
    return f"{name}.mask"
