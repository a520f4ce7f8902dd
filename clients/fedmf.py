"""FedMF's users (Chai et al., IEEE Intelligent Systems 2020): matrix factorisation by sums of gradients alone.

A user steps its own embedding and bias, and uploads the gradient of the *whole* item table, zeros for what it has not
rated, as fixed-point numbers under masks that cancel in the sum over the round's participants (`privacy.secure_sum`,
in place of the paper's homomorphic encryption).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from clients.recommender import IDS, ITEMS, ROWS, RecommenderClient
from clients.recommender_models import require_factorisation
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.models.user_graphs import UserGraphs
from subfl_flower.models.user_models import UserGradients
from subfl_flower.privacy.secure_sum import VALUE_BITS, masked, quantise
from subfl_flower.runtime.ragged import Ragged

PARTICIPANTS, MASKED = "participants", "masked"


class FedMFClient(RecommenderClient):
    """Masks what it uploads."""

    class Settings(RecommenderClient.Settings):
        """How uploads are hidden.

        Attributes:
            masks: hide each upload; false: send the gradients of the rated items as they are, for comparison.
            fraction_bits: bits after the point of what is added up under masks.
            mask_degree: other participants with whom a user shares masks; all of them must work with the server to see
                its upload.
        """

        masks: bool = True
        fraction_bits: int = Field(default=24, ge=8, lt=VALUE_BITS)
        mask_degree: int = Field(default=2, ge=2, multiple_of=2)

    settings: Settings

    @classmethod
    def check_model(cls, model: RecommenderSettings, method: str) -> None:
        """It must be plain matrix factorisation."""
        require_factorisation(model, method)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._participants: tuple[int, ...] = ()

    @property
    def parameter_names(self) -> Sequence[str]:
        """The shared parameters; under masks also who takes part in the round."""
        return (*super().parameter_names, *([PARTICIPANTS] if self.settings.masks else []))

    @property
    def uploaded_parameters(self) -> Sequence[str]:
        """Under masks all in one array."""
        return (MASKED,) if self.settings.masks else super().uploaded_parameters

    @property
    def ragged_uploads(self) -> tuple[str, ...]:
        """Under masks none."""
        return () if self.settings.masks else super().ragged_uploads

    def fit(
        self, parameters: list[np.ndarray], config: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """One gradient of each user; see `CohortClient.fit`."""
        if self.settings.masks:
            *parameters, participants = parameters
            self._participants = tuple(participants[0].tolist())
        return super().fit(parameters, config)

    def uploads(
        self, gradients: UserGradients, graphs: UserGraphs, ratings: Ratings, server_round: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Ragged]]:
        """The gradients of everything that is shared, masked: uint64 [U, values], the item table's last."""
        shared, ragged = super().uploads(gradients, graphs, ratings, server_round)
        if not self.settings.masks:
            return shared, ragged
        if self.cohort.shared_key is None:
            raise SubflError("this node has no shared key, which the masks of a sum are made with")
        key = self.cohort.shared_key.read()
        # Others in the same round would be another sum, and two sums must not share masks.
        about = np.array([server_round, *self._participants], dtype="<i8").tobytes() + self.cohort.run.encode()
        hidden = [
            masked(
                quantise(self._dense(shared, ragged, user), self.settings.fraction_bits),
                client_id,
                self._participants,
                key,
                about,
                self.settings.mask_degree,
            )
            for user, client_id in enumerate(ratings.user_ids.tolist())
        ]
        return {MASKED: np.stack(hidden)}, {}

    def _dense(self, shared: Mapping[str, np.ndarray], ragged: Mapping[str, Ragged], user: int) -> np.ndarray:
        """All of a user's gradients in a row, with zeros for items that it has not rated."""
        table = np.zeros(self.model.shapes[ITEMS], dtype=np.float32)
        table[ragged[IDS].of(user)] = ragged[ROWS].of(user)
        return np.concatenate([*(shared[name][user].reshape(-1) for name in self._network_names), table.reshape(-1)])
