"""Neighbours whom users are told of by the matcher, a node that knows no user (FedGNN: Wu et al., 2022, Algorithm 2).

A user sends the matcher a sealed box through the server. The box holds tokens of its items, and its embedding. The
matcher answers with the embeddings of users with items in common, and the user's local graph is expanded by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.user_parts import AskedUsers, Neighbourhood
from subfl_flower.clients.recommendation.users import rated_items
from subfl_flower.errors import SubflError
from subfl_flower.node.matcher import BOX, expansion_context
from subfl_flower.node.state import Shapes
from subfl_flower.privacy.expansion import opened_neighbours, sealed_request
from subfl_flower.privacy.sealed_box import KEY_BYTES
from subfl_flower.privacy.tokens import token_table
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import UserGradients
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Question

EXPAND, NEIGHBOURS = "expand", "neighbours"


class MatchedNeighbours(Neighbourhood):
    """Neighbours of users, as the matcher told them (settings: `ExpansionSettings`)."""

    phases = (EXPAND, NEIGHBOURS)

    @property
    def kept(self) -> Shapes:
        """The neighbours' embeddings, and their number."""
        most, width = self._most, self.users.run.model.dim
        return {"neighbours": (most, width), "num_neighbours": ()} if most else {}

    @property
    def state(self) -> Shapes:
        """The key that seals the next neighbours."""
        return {"reply_key": (KEY_BYTES,)} if self._most else {}

    @property
    def _most(self) -> int:
        """The largest number of neighbours; 0: no graph is expanded."""
        most: int = self.users.run.model.neighbours
        return most

    @property
    def trained(self) -> bool:  # type: ignore[override]
        """True in an ablation; in the method neighbours stay as they were told."""
        return self.settings.train_neighbours and self._most > 0

    def expanded(self, graphs: UserGraphs, own: Mapping[str, Tensor]) -> UserGraphs:
        """The local graphs together with the neighbours that users were told of."""
        if not self._most:
            return graphs
        counts = own["num_neighbours"].long().tolist()
        embeddings = own["neighbours"].cpu().numpy()
        return graphs.with_neighbours([embeddings[row, :count] for row, count in enumerate(counts)])

    def step(self, graphs: UserGraphs, gradients: UserGradients, own: Mapping[str, Tensor]) -> UserGraphs:
        """Take a plain gradient step of the neighbours' embeddings and keep them, where they are trained."""
        if gradients.neighbours is None or not len(graphs.neighbours):
            return graphs
        stepped = graphs.neighbours - self.users.optimizer.lr * gradients.neighbours
        places = torch.cat([torch.arange(count) for count in graphs.neighbour_lengths])
        own["neighbours"][graphs.neighbour_segment, places.to(stepped.device)] = stepped
        return replace(graphs, neighbours=stepped)

    def answer(self, question: Question, asked: AskedUsers) -> Answers:
        """The users' boxes for the matcher, or nothing, once they have read what it sealed for them."""
        if not self._most:
            raise SubflError(f"query.{question.phase} has no answer: model.neighbours is 0")
        with asked.state.working() as own:
            return self._sealed(question, asked, own) if question.phase == EXPAND else self._unsealed(question, own)

    def _sealed(self, question: Question, asked: AskedUsers, own: Mapping[str, Tensor]) -> Answers:
        """A box for the matcher from each user: the tokens of its items, its embedding, and a key for the answer."""
        cohort, settings = self.users.cohort, self.settings
        if cohort.shared_key is None:
            raise SubflError("this node has no shared key, which items' tokens are made with")
        run, server_round = str(question.about["id"]), question.server_round
        context = expansion_context(run, server_round)
        ratings = cohort.ratings.of_users(asked.positions)
        tokens = token_table(ratings.num_items, cohort.shared_key.read(), run.encode())
        rated = rated_items(ratings)
        noise = self.users.generators(ratings, server_round, "embedding noise")
        boxes: dict[int, Stack] = {}
        for row, client_id in enumerate(question.received):
            box, reply_key = sealed_request(
                tokens[rated.of(row)],
                own["user"][row].cpu().numpy(),
                cohort.trusted_matcher or question.about["matcher_key"],
                context,
                settings.embedding_noise,
                noise[row],
            )
            own["reply_key"][row] = torch.from_numpy(np.frombuffer(reply_key, dtype=np.uint8).astype(np.float32))
            boxes[client_id] = {BOX: np.frombuffer(box, dtype=np.uint8)}
        return Answers(boxes)

    def _unsealed(self, question: Question, own: Mapping[str, Tensor]) -> Answers:
        """Read what the matcher sealed; a user whose box does not open keeps its earlier neighbours."""
        context = expansion_context(str(question.about["id"]), question.server_round)
        taken: dict[int, Stack] = {}
        failures: dict[int, str] = {}
        for row, (client_id, received) in enumerate(question.received.items()):
            key = own["reply_key"][row].cpu().numpy().astype(np.uint8).tobytes()
            try:
                found = opened_neighbours(received[BOX].tobytes(), key, context, self.users.run.model.dim)[: self._most]
            except (SubflError, KeyError) as error:
                failures[client_id] = str(error) if isinstance(error, SubflError) else "the server sent it no box"
                continue
            own["neighbours"][row].zero_()
            own["neighbours"][row, : len(found)] = torch.from_numpy(found.copy())
            own["num_neighbours"][row] = len(found)
            taken[client_id] = {}
        return Answers(taken, failures)
