r"""FCF's users (Ammad-ud-din et al., 2019), for explicit ratings: matrix factorisation, the user's side in closed form.

A user's embedding x and bias c are fitted to its n ratings at the received item table, as the solution of the ridge
regression

.. math:: \min_{x, c} \sum_i (y_i - b - b_i - c - x \cdot x_i)^2 + n (\lambda |x|^2 + \mu c^2),

where every rating has weight 1, and items without a rating have none. The user uploads the gradients of the rated
items' rows at the solution. λ is the model's penalty of a user's embedding (`embedding_penalty` + `hidden_penalty`, the
hidden state being the embedding), μ its `bias_penalty`.
"""

from __future__ import annotations

from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.recommender_models import require_factorisation
from subfl_flower.clients.recommendation.summed_biases import SummedBiases
from subfl_flower.clients.recommendation.user_settings import BiasSettings, GradientSettings, PerRound
from subfl_flower.clients.recommendation.user_work import ClosedForm
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import RecommenderSettings


class FCFClient(RecommenderClient):
    """Solve for the personal parameters instead of stepping them."""

    class Settings(GradientSettings, BiasSettings):
        """Knobs of the loss, of biases, and of the server."""

        users_per_round: PerRound = "auto"

    Work = ClosedForm
    Exchanges = (SummedBiases,)

    phases = SummedBiases.phases

    @classmethod
    def check_model(cls, model: RecommenderSettings, method: str) -> None:
        """Refuse a model that is not plain matrix factorisation with a penalty."""
        require_factorisation(model, method)
        if not model.embedding_penalty + model.hidden_penalty:
            raise SubflError(
                f"model.embedding_penalty or model.hidden_penalty must be above 0 with method={method}: "
                "the embedding of who has few ratings is not unique otherwise"
            )
