"""FedMF's users (Chai et al., IEEE Intelligent Systems 2020): matrix factorisation by sums of gradients alone.

A user steps its own embedding and bias, and uploads the gradient of the *whole* item table, zeros for what it has not
rated, as fixed-point numbers under masks that cancel in the sum over the round's participants (`privacy.secure_sum`,
in place of the paper's homomorphic encryption).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from clients.recommender import IDS, ITEMS, ROWS, RecommenderClient
from clients.recommender_models import require_factorisation
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.models.user_graphs import UserGraphs
from subfl_flower.models.user_models import UserGradients
from subfl_flower.privacy.secure_sum import VALUE_BITS, masked, quantise
from subfl_flower.runtime.batch import Batch
from subfl_flower.runtime.contract import Declared, RunContext
from subfl_flower.runtime.messages import ArraySpec
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

        user_lr: float | None = Field(default=0.05, gt=0)
        row_average: Literal["uploads", "participants"] = "participants"
        masks: bool = Field(default=True, validate_default=True)
        fraction_bits: int = Field(default=24, ge=8, lt=VALUE_BITS)
        mask_degree: int = Field(default=2, ge=2, multiple_of=2)

        @field_validator("masks")
        @classmethod
        def _nobody_counts_rows(cls, value: bool, info: ValidationInfo) -> bool:
            if value and info.data.get("row_average") == "uploads":
                raise ValueError("must be false with row_average=uploads: a masked upload does not show its rows")
            return value

    settings: Settings

    @classmethod
    def check_model(cls, model: RecommenderSettings, method: str) -> None:
        """It must be plain matrix factorisation."""
        require_factorisation(model, method)

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """The shared parameters; under masks also the ids of all who take part in the round."""
        participants = {PARTICIPANTS: ArraySpec((-1,), "int32", needed=False)} if run.settings.masks else {}
        return {**super().downloads(run), **participants}

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """Under masks one array of all gradients."""
        if not run.settings.masks:
            return super().uploads(run)
        size = sum(value.size for value in run.initial.values())
        return {MASKED: ArraySpec((size,), "uint64", bounded=False)}

    def made_uploads(
        self, gradients: UserGradients, graphs: UserGraphs, ratings: Ratings, batch: Batch
    ) -> tuple[dict[str, np.ndarray], dict[str, Ragged]]:
        """The gradients of everything that is shared, masked: uint64 [U, values], the item table's last."""
        shared, ragged = super().made_uploads(gradients, graphs, ratings, batch)
        if not self.settings.masks:
            return shared, ragged
        if self.cohort.shared_key is None:
            raise SubflError("this node has no shared key, which the masks of a sum are made with")
        key = self.cohort.shared_key.read()
        # Others in the same round would be another sum, and two sums must not share masks.
        participants = tuple(batch.sent.values[PARTICIPANTS][batch.sent.rows[0, 0]].tolist())
        about = np.array([batch.server_round, *participants], dtype="<i8").tobytes() + self.cohort.run.encode()
        hidden = [
            masked(
                quantise(self._dense(shared, ragged, user), self.settings.fraction_bits),
                client_id,
                participants,
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
        return np.concatenate([*(shared[name][user].reshape(-1) for name in self.network_names), table.reshape(-1)])
