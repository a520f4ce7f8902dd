r"""FCF's users (Ammad-ud-din et al., 2019), for explicit ratings: matrix factorisation, the user's side in closed form.

A user's embedding x and bias c are whatever suits its n ratings best at the item table that it received, the solution
of the ridge regression

.. math:: \min_{x, c} \sum_i (y_i - b - b_i - c - x \cdot x_i)^2 + n (\lambda |x|^2 + \mu c^2),

where every rating has weight 1, and items that were not rated have none. The gradients of the rated items' rows at the
solution are what goes up. λ is the model's penalty of a user's embedding (`embedding_penalty` + `hidden_penalty`, the
hidden state being the embedding), μ its `bias_penalty`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clients.recommender import ITEMS, RecommenderClient
from clients.recommender_models import require_factorisation
from subfl_flower.errors import SubflError
from subfl_flower.models.segments import segment_sum
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.models.user_graphs import UserGraphs
from subfl_flower.models.user_models import UserGradients
from subfl_flower.runtime.batch import Batch, Result
from subfl_flower.runtime.state import CohortState


class FCFClient(RecommenderClient):
    """Solves for what is personal, instead of stepping it."""

    @classmethod
    def check_model(cls, model: RecommenderSettings, method: str) -> None:
        """It must be plain matrix factorisation, with a penalty."""
        require_factorisation(model, method)
        if not model.embedding_penalty + model.hidden_penalty:
            raise SubflError(
                f"model.embedding_penalty or model.hidden_penalty must be above 0 with method={method}: "
                "the embedding of who has few ratings is not unique otherwise"
            )

    @property
    def _penalty(self) -> float:
        """λ."""
        penalty: float = self.run.model.embedding_penalty + self.run.model.hidden_penalty
        return penalty

    def own_steps(
        self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, own: dict[str, Tensor]
    ) -> UserGradients:
        """Solve for what is personal; the gradients there."""
        own.update(self._solved(shared, items, graphs))
        personal = {name: own[name] for name in self.model.personal_shapes}
        return self._weighted(self.model.gradients(shared, items, personal, graphs), graphs)

    def measure_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Each user's errors with what it solves for, and keeps."""
        (shared,) = self.received(batch)
        positions = [self.position_of[client_id] for client_id in batch.clients]
        graphs, items = self._graphs(self.cohort.ratings.of_users(positions), positions, shared[ITEMS], None)
        with state.rows(positions, self.cohort.device, tuple(self._worked_on)) as own:
            self._begin(own, positions, batch.announced)
            own.update(self._solved(shared, items, graphs))
        return super().measure_chunk(batch, state)

    def _solved(self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs) -> dict[str, Tensor]:
        """Each user's embedding [U, dim] and bias [U]; zeros without ratings."""
        rows = items.index_select(0, graphs.rows)
        embeddings, biases = rows[:, :-1], rows[:, -1]
        known = torch.cat([embeddings, torch.ones_like(biases)[:, None]], dim=1)
        targets = graphs.targets - biases - shared["bias"]
        # A Gram matrix takes no copy of rows for every pair of columns.
        products = torch.stack([own.T @ own for own in known.split(graphs.lengths)])
        penalties = known.new_full((known.shape[1],), self._penalty)
        penalties[-1] = self.run.model.bias_penalty
        ridge = torch.diag_embed(graphs.counts.clamp(min=1)[:, None] * penalties)
        right = segment_sum(known * targets[:, None], graphs.segment, len(graphs))
        solution = torch.linalg.solve(products + ridge, right)
        return {"user": solution[:, :-1], "user_bias": solution[:, -1]}
