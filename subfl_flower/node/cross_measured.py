"""Clients' half of evaluation modes: they give their last models, and measure models of others on their own data.

Both belong to a simulation. A node whose clients' data lie apart refuses, whatever a server claims of the run.
"""

from __future__ import annotations

from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.wire.batch import Answers, Question

LAST_MODEL, TEST_OUTPUTS = "last_model", "test_outputs"
"""The phases: a client's model after its last training, and outputs at its test examples under the model it is sent."""


class CrossMeasuredClients:
    """The clients of a node whose models are measured on one another's data.

    Args:
        client: the object that trains them.
    """

    phases = (LAST_MODEL, TEST_OUTPUTS)

    def __init__(self, client: CohortClient) -> None:
        self._client = client

    def answer(self, question: Question) -> Answers:
        """Have some clients answer a question of one of the `phases`.

        Raises:
            SubflError: the run has no evaluation modes, or is no simulation.
        """
        client = self._client
        if not (client.run.evaluation_modes and getattr(client.cohort, "simulated", False)):
            raise SubflError(
                f"query.{question.phase}: a client's model is measured on others' data only in a simulation with "
                "record.evaluation_modes=true"
            )
        if question.phase == LAST_MODEL:
            return Answers({client_id: client.last_model(client_id) for client_id in question.received})
        return Answers(client.test_outputs(question.received))
