r"""FED-PUB: Baek et al., "Personalized subgraph federated learning", ICML 2023 (arXiv 2206.10206): the clients' side.

A client trains a private mask µ for every weight matrix θ (Section 3.3). The paper's equations on this side:

- Eq. 2, the personalised problem: the GCN computes with :math:`\theta \odot \mu` (`MaskedWeights.effective`), where θ
  starts from the average that the server sent.
- Eq. 3, that average: `strategies/subgraphs/fedpub.py`. It compares the functional embeddings that clients make in
  `clients/subgraphs/description.py`.
- Eq. 4, the local objective, whose gradients are in `MaskedWeights.add_penalty_gradients`:

.. math:: L(\theta \odot \mu) + \lambda_1 \lVert \mu \rVert_1 + \lambda_2 \lVert \theta - \bar\theta_i \rVert_2^2 .

Pruned weights are zero whenever the model is evaluated, embedded or sent, and do not travel. By default ``sparsity`` is
the share of them, and grows over the run (`clients/subgraphs/pruning.py`). With ``sparsity=null`` the paper's two knobs
make masks sparse: ``mask_l1`` (:math:`\lambda_1`) is the weight of the penalty, and moves the mask in training;
``mask_threshold`` decides which entries count as zero. :math:`\lambda_2` is ``proximal``.

Eq. 4 has no weight decay, and by default this client has none. This matters: where the data give no gradient, Adam
makes whole steps of even the smallest decay, and so destroys what other clients know. For the same reason the penalty
excludes the rows of the first layer whose feature no training node can see through the GCN. Such rows stay as received
and are not sent back. Rows of features that a client does not have at all travel in neither direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from subfl_flower.clients.subgraphs.description import Description, DescriptionSettings, SimilarityDescription
from subfl_flower.clients.subgraphs.local_weights import LocalWeights
from subfl_flower.clients.subgraphs.masked_weights import WANTED, MaskedWeights
from subfl_flower.clients.subgraphs.pruning import MaskThreshold, Pruning, ShareOfWeights
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.subgraphs.models.choices import network_class
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.wire.contract import AbsentFeatures, Declared, RunContext
from subfl_flower.wire.payload import ArraySpec


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
            sparsity: the share of the network's entries that are zero outside training at the end: those of absent
                features, and the smallest of what was received times the mask. null: ``mask_threshold`` decides.
            sparsity_reached: the share of the rounds after which ``sparsity`` is reached.
            mask_l1: λ1, weight of the sum of absolute mask entries.
            mask_threshold: mask entries with no larger absolute value are zero outside training, where ``sparsity`` is
                null.
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
        sparsity: float | None = Field(default=0.63, ge=0, lt=1)
        sparsity_reached: float = Field(default=0.5, ge=0, le=1)
        mask_l1: float = Field(default=0.0, ge=0)
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
            self._pruning(),
        )

    def _pruning(self) -> Pruning:
        """The rule by which entries are zero outside of training."""
        settings = self.settings
        if settings.sparsity is None:
            return MaskThreshold(settings.mask_threshold)
        if self.run.num_rounds is None:
            raise SubflError("method.sparsity: rises over the run, whose number of rounds is not known here; set null")
        entries = sum(math.prod(self.model.shapes[name]) for name in self.model.weight_matrices)
        return ShareOfWeights(settings.sparsity, settings.sparsity_reached, self.run.num_rounds, entries)

    def describes(self) -> Sequence[Description]:
        """The embedding."""
        return (SimilarityDescription(self.settings, self.model, self.cohort, self.seed),)


class FedPUBReleasedClient(FedPUBClient):
    """The variant of the authors' public code.

    It stands a level deeper than other clients because it differs from FED-PUB in defaults alone.
    """

    class Settings(FedPUBClient.Settings):
        """The defaults of the authors' public code."""

        sparsity: float | None = Field(default=None, ge=0, lt=1)
        weight_decay: float | None = Field(default=None, ge=0)
        mask_threshold: float = Field(default=1e-3, ge=0)
        centred: bool = False
        random_p_out: float = Field(default=0.0, ge=0, le=1)
        variant: Literal["paper", "released"] = "released"
