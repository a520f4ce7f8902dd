r"""FED-PUB: Baek et al., "Personalized subgraph federated learning", ICML 2023 (arXiv 2206.10206).

The paper's equations on the server's side:

- Eq. 2, the personalised problem: client i trains its model :math:`\theta_i \odot \mu_i` from a personal average, whose
  coefficients :math:`\alpha_{ij}` are larger within a community of similar subgraphs. The masks µ are the clients'
  (`clients/subgraphs/fedpub.py`), and so is eq. 4, the local objective.
- Eq. 3, this average. S_ij is the cosine of h_i and h_j, the functional embeddings that the clients send: similar
  outputs on a random graph point to one community.

.. math:: \bar\theta_i = \sum_j \alpha_{ij} \theta_j, \quad
          \alpha_{ij} = \frac{\exp(\tau S_{ij})}{\sum_k \exp(\tau S_{ik})} .

The softmax over similarities is in `strategies/subgraphs/similarity.py`, and the sum in `FedPUB.mixed`.

Clients send only the weights that their private mask keeps and that their training reaches. The paper does not say how
a missing weight counts in the average; see ``missing`` of `FedPUBClient.Settings`.
"""

from __future__ import annotations

import numpy as np

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.masked_weights import WANTED
from subfl_flower.models.row_stack import RowStack, as_array
from subfl_flower.seeding import shared_generator
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, mix
from subfl_flower.strategies.subgraphs.pruned_rows import RowMixer
from subfl_flower.strategies.subgraphs.similarity import SimilarityWeights
from subfl_flower.subgraphs.models.stacked_gnn import CLASSIFIER
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster

# Entries of a client's weights that are mixed at once.
_BLOCK = 4096


class FedPUB(MixingStrategy):
    """Average masked models by client similarity, one average for each client."""

    Settings = FedPUBClient.Settings
    counterpart = FedPUBClient
    zero_is_not_sent = True

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self.similarity = SimilarityWeights(self.settings, roster, self.remembered)
        self._rows = RowMixer()
        if self.settings.variant == "released":
            self._draw_classifier(run.seed)

    def _draw_classifier(self, seed: int) -> None:
        """Draw the classifier's first weights Glorot-uniform, as the masked layer of the authors' public code does."""
        name = f"{CLASSIFIER}.weight"
        if name in self.initial:
            shape = self.initial[name].shape
            bound = (6 / sum(shape)) ** 0.5
            drawn = shared_generator(seed, "masked classifier").uniform(-bound, bound, shape).astype(np.float32)
            self.initial[name] = drawn
            self.parameters[name] = np.broadcast_to(drawn, (len(self.roster), *shape))

    @property
    def announcements(self) -> dict[str, float]:
        """The size of a random graph that is like the clients' graphs."""
        return self.similarity.announcements

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """α of eq. 3, [K, A]."""
        return self.similarity.matrix(updates, self.parameters, self.roster.num_examples)

    def state(self) -> Stack:
        """The base's state, and the embeddings, or other rows, that clients are compared by."""
        return {**super().state(), **self.similarity.state()}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        self.similarity.load_state(state)

    def with_skipped_rows(self, updates: Updates) -> Updates:
        """The replies as they are: a weight that a client does not send is pruned, see ``missing``."""
        return updates

    def mixed(self, matrix: np.ndarray, updates: Updates) -> Stack:
        """Each client's average (eq. 3); a client is not sent entries that it does not use."""
        mixed: Stack = {}
        for name in self.initial:
            sent = updates.arrays[name]
            if isinstance(sent, RowStack) and self.takes_sums:
                wanted, owners_alone = updates.arrays[WANTED] != 0, self.settings.missing == "owners"
                weights = matrix.astype(np.float32)
                mixed[name] = as_array(self._rows.mixed(weights, sent, wanted, updates.positions, owners_alone))
                continue
            # Masks are on weight matrices; a bias of zero is a value like any other. The released variant sends all.
            if sent.ndim < 3 or self.settings.variant == "released" or all(client.all() for client in sent):
                mixed[name] = self.averaged(matrix, np.asarray(sent))
                continue
            wanted = updates.arrays.get(WANTED) if name == self._feature_rows else None
            weights = matrix.astype(np.float32)
            mixed[name] = self._mixed_where_used(weights, np.asarray(sent), wanted, updates.positions)
        return mixed

    @property
    def _feature_rows(self) -> str | None:
        return None if self.run.network is None else self.run.network.feature_rows

    def _mixed_where_used(
        self, matrix: np.ndarray, sent: np.ndarray, wanted_rows: np.ndarray | None, positions: np.ndarray
    ) -> np.ndarray:
        """M times a pruned weight matrix, for each client only the entries that it uses; by blocks that stay in cache.

        Args:
            matrix: M [K, A].
            sent: [A, rows, columns], zero where pruned.
            wanted_rows: [A, rows], not 0 where a client also wants others' values of a row that it did not send.
            positions: of the A clients among the K.
        """
        everyone = len(positions) == len(matrix)
        mixed = np.empty((len(matrix), *sent.shape[1:]), dtype=np.float32)
        step = max(1, _BLOCK // sent.shape[2])
        for rows in (slice(start, start + step) for start in range(0, sent.shape[1], step)):
            used = (sent[:, rows] != 0).astype(np.float32)
            owners_alone = self.settings.missing == "owners"
            block = self.averaged(matrix, sent[:, rows], used != 0 if owners_alone else None)
            if owners_alone and self.takes_sums:
                share = mix(matrix, {"": used})[""]
                # Where nobody sent a weight its sum is zero, too.
                block = block / np.maximum(share, np.finfo(np.float32).tiny)
            if wanted_rows is not None:
                np.maximum(used, wanted_rows[:, rows, None] != 0, out=used)
            if everyone:
                np.multiply(block, used, out=mixed[:, rows])
            else:
                mixed[:, rows] = block
                mixed[positions, rows] *= used
        return mixed
