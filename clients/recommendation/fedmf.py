"""FedMF's users (Chai et al., IEEE Intelligent Systems 2020): matrix factorisation by sums of gradients alone.

A user steps its embedding and bias. It uploads the gradient of the *whole* item table, with zeros for items that it has
not rated, as fixed-point numbers under masks that cancel in the sum over the round's participants
(`privacy.secure_sum`, in place of the paper's homomorphic encryption).
"""

from __future__ import annotations

from pydantic import Field

from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.recommender_models import require_factorisation
from subfl_flower.clients.recommendation.summed_biases import SummedBiases
from subfl_flower.clients.recommendation.upload_transforms import SumMasks
from subfl_flower.clients.recommendation.user_settings import BiasSettings, MaskSettings, PerRound, StepSettings
from subfl_flower.clients.recommendation.user_work import GradientWork
from subfl_flower.models.settings import RecommenderSettings


class FedMFClient(RecommenderClient):
    """Step the personal parameters, and mask the gradients of the rest."""

    class Settings(MaskSettings, BiasSettings, StepSettings):
        """Knobs of a user's steps, of biases, and of masks."""

        users_per_round: PerRound = "auto"
        user_lr: float | None = Field(default=0.05, gt=0)

    Work = GradientWork
    Transforms = (SumMasks,)
    Exchanges = (SummedBiases,)

    phases = SummedBiases.phases

    @classmethod
    def check_model(cls, model: RecommenderSettings, method: str) -> None:
        """Refuse a model that is not plain matrix factorisation."""
        require_factorisation(model, method)
