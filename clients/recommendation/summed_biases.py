r"""Users' share in biases that the server finds from masked sums, before the first round.

The biases are those of `bias_row`: they minimise the squared errors of the training ratings plus s times the biases'
squares. Users and server take turns. With biases b_i of the items as the server tells them, a user has

.. math:: b_u = \frac{\sum_i (y_{ui} - b_i)}{n_u + s}.

It tells the server :math:`y_{ui} - b_u` for each item that it rated (and once 1), zeros for the others, under masks
that cancel in the sum over all users (`subfl_flower.privacy.secure_sum`). So the server knows sums and counts of items,
of all users together, and no user's. b_u never leaves the user.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.upload_transforms import ATTEMPT, PARTICIPANTS
from subfl_flower.clients.recommendation.user_parts import AskedUsers, UserPart
from subfl_flower.errors import SubflError
from subfl_flower.models.segments import segment_sum
from subfl_flower.privacy.secure_sum import masked, quantise
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Question

BIASES, ITEM_BIASES, SUMS = "biases", "item_biases", "sums"
"""Name of the question and of its announcement, and of the arrays that go down and up."""

SUM_BITS = 24
"""Bits after the point of the numbers that are added up: ratings are of the size of 1."""

_DEGREE = 2


class SummedBiases(UserPart):
    """Tell sums of ratings under masks, from which the server finds the items' biases (settings: `BiasSettings`)."""

    phases = (BIASES,)

    def answer(self, question: Question, asked: AskedUsers) -> Answers:
        """Each user's sums of all items under its masks, uint64 [num_items]; in the first turn counts follow.

        Raises:
            SubflError: uploads are to be noised, which sums are not, or the node lacks the users' key.
        """
        cohort, run = self.users.cohort, self.users.run
        if run.privacy.mechanism != "none":
            raise SubflError(f"privacy={run.privacy.mechanism} does not cover sums of ratings: users do not tell them")
        if cohort.shared_key is None:
            raise SubflError("this node has no shared key, which the masks of a sum are made with")
        key, ratings = cohort.shared_key.read(), cohort.ratings.of_users(asked.positions)
        graphs = UserGraphs.build(ratings, cohort.center, cohort.spread)
        answers: dict[int, Stack] = {}
        for client, targets, items in zip(
            asked.clients, graphs.targets.split(graphs.lengths), graphs.items.split(graphs.lengths), strict=True
        ):
            received = question.received[client]
            known, participants = received[ITEM_BIASES], tuple(received[PARTICIPANTS].tolist())
            rest = targets.double() - torch.tensor(known, dtype=torch.float64)[items]
            own = rest.sum() / (len(rest) + self.settings.bias_shrinkage)
            sums = np.zeros((2, ratings.num_items))
            sums[0, items.numpy()] = (targets.double() - own).numpy()
            sums[1, items.numpy()] = 1
            turn = int(question.about["turn"])
            sums = sums if turn == 1 else sums[:1]
            # Each turn is another sum, and so is one among other participants: two sums must not share masks.
            numbered = np.array([question.server_round, turn, *participants], dtype="<i8")
            about = b"biases" + numbered.tobytes() + cohort.run.encode()
            about += str(question.about.get(ATTEMPT)).encode()
            self.users.claim_masks([client], about)
            numbers = quantise(sums.reshape(-1), SUM_BITS)
            answers[client] = {SUMS: masked(numbers, client, participants, key, about, _DEGREE)}
        return Answers(answers)


def user_biases(graphs: UserGraphs, item_biases: Tensor, shrinkage: float) -> Tensor:
    """Each user's bias [U] that follows from its items' biases [T]; 0 without ratings."""
    sums = segment_sum(graphs.targets - item_biases, graphs.segment, len(graphs))
    return sums / (graphs.counts + shrinkage)
