r"""SubPFed: Li, Bao and Tong, CMC 2026, 88(1):34: the clients' side.

Clients train and embed like FED-PUB's, without masks. The paper's equations on this side:

- Eq. 4, the functional embedding :math:`\tilde e_i`, the mean over the nodes of a random graph of the model's output:
  `SimilarityDescription` in `clients/subgraphs/description.py`.
- Eq. 5, the structural distance: a client sends its terms (`answer_of`).
- Eq. 6, the mixing matrix from both: `strategies/subgraphs/subpfed.py`, which also combines the terms of eq. 5.
- Eq. 7, the local objective :math:`L(\theta) + \lambda \lVert \theta - \bar\theta_i \rVert_2^2`, with λ as
  ``proximal``: `clients/subgraphs/local_weights.py`.

The terms of eq. 5 are asked for before the first round (``query.structure``), about the client's shareable nodes. For
each node the client sends a keyed hash of its id, the sum of its distances to the client's other nodes, the number of
nodes it reaches, and its degree. Ids, features and edges stay with the client; only the clients have the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from subfl_flower.clients.subgraphs.description import Description, DescriptionSettings, SimilarityDescription
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.similarity.structural import describe_structure
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question
from subfl_flower.wire.contract import Declared, RunContext

STRUCTURE = "structure"


class SubPFedClient(SubgraphClient):
    """Answer ``query.structure``; train, and embed the model."""

    class Settings(DescriptionSettings, SubgraphClient.Settings):
        """Knobs of the aggregation.

        Attributes:
            psi: ψ, the structural part's share.
            kernel: from distance D to weight: ``exp``, exp(-γ D/D_max); ``inverse``, 1/(1 + γ D/D_max); ``literal``, D,
                where the functional part is also as printed: the cosine divided by its row's sum, without τ.
            gamma: γ.
            degree_weighted: True where shared nodes are weighted by their degree (ω in eq. 5); else all have equal
                weight.
            tau: sharpness of the softmax over functional similarities; ``auto`` as in FED-PUB.
            community_threshold: as in FED-PUB, of the functional part.
        """

        psi: float = Field(default=0.5, ge=0, le=1)
        kernel: Literal["exp", "inverse", "literal"] = "exp"
        gamma: float = Field(default=1.0, ge=0)
        degree_weighted: bool = True
        tau: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
        community_threshold: float | None = Field(default=None, ge=-1, le=1)
        random_graph: Literal["sbm", "er", "one", "feature"] = "er"
        proximal: float = Field(default=1e-3, ge=0)
        weight_decay: float | None = Field(default=0.0, ge=0)

    settings: Settings

    phases = (STRUCTURE,)

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """The shared parameters, and the embedding."""
        return {**cls.shared(run), **SimilarityDescription.declared(run)}

    def describes(self) -> Sequence[Description]:
        """The embedding."""
        return (SimilarityDescription(self.settings, self.model, self.cohort, self.seed),)

    def answer_of(self, client_id: int, question: Question) -> Stack:
        """The client's terms of eq. 5: the four arrays of a `Structure`, by name.

        Raises:
            SubflError: the shared key cannot be read.
        """
        if self.cohort.shared_key is None:
            raise SubflError("this node has no shared key, which the clients' node ids are hashed with")
        graph = self.cohort.visible[self.position_of[client_id]]
        structure = describe_structure(
            graph.edge_index, graph.num_nodes, graph.shareable, graph.node_ids, self.cohort.shared_key.read()
        )
        return {
            "tokens": structure.tokens,
            "distances": structure.distances,
            "reach": structure.reach,
            "degrees": structure.degrees,
        }
