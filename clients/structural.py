"""SubPFed's clients: functional clients that also tell how they lie around the nodes that they share with others
(Li, Bao and Tong, CMC 2026, 88(1):34).

Before the first round a client is asked for the structure of its shareable nodes (``query.structure``). It answers
with a keyed hash of each node's id, the sum of its distances to the client's other nodes, how many nodes it reaches,
and its degree. Ids, features and edges stay where they are; the key is the clients' own.
"""

from __future__ import annotations

from clients.functional import FunctionalClient
from subfl_flower.errors import SubflError
from subfl_flower.runtime.cohort_client import Question
from subfl_flower.runtime.messages import Stack
from subfl_flower.similarity.structural import describe_structure

STRUCTURE = "structure"


class StructuralClient(FunctionalClient):
    """Answers ``query.structure``; trains and embeds like any functional client."""

    def answer(self, question: Question, client_id: int) -> Stack:
        """The four arrays of a `Structure`, by name.

        Raises:
            SubflError: the shared key cannot be read, or another phase is asked for.
        """
        if question.action != STRUCTURE:
            return super().answer(question, client_id)
        if self.cohort.shared_key is None:
            raise SubflError("this node has no shared key, which the clients' node ids are hashed with")
        graph = self.cohort.visible[self.cohort.client_ids.index(client_id)]
        structure = describe_structure(
            graph.edge_index, graph.num_nodes, graph.shareable, graph.node_ids, self.cohort.shared_key.read()
        )
        return {
            "tokens": structure.tokens,
            "distances": structure.distances,
            "reach": structure.reach,
            "degrees": structure.degrees,
        }
