"""The state that users keep between rounds, and a copy of what they predict with as it was at the best round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.users import Users
from subfl_flower.models.adam import adam_state_shapes
from subfl_flower.node.state import CohortState, Shape, Shapes


class UserStates:
    """Personal parameters, the moments of their optimiser, and the state of a client's parts.

    Args:
        users: of the node.
        kept: shapes by name of what a user predicts with, besides its personal parameters.
        further: shapes by name of the parts' further state.

    Attributes:
        shapes: shapes of the whole state, by name.
    """

    def __init__(self, users: Users, kept: Shapes, further: Shapes) -> None:
        self.users = users
        personal = users.model.personal_shapes
        self._kept = {**personal, **kept}
        self.shapes: dict[str, Shape] = {
            **personal,
            **adam_state_shapes(personal),
            "started": (),
            **kept,
            **further,
            **{f"best.{name}": shape for name, shape in self._kept.items()},
            "best_round": (),
        }

    def of(self, state: CohortState, positions: Sequence[int], announced: Mapping[str, float]) -> UserRows:
        """State of the users at some positions, in a round in which the server announced these numbers."""
        return UserRows(self, state, positions, announced)

    def best(self, state: CohortState, announced: Mapping[str, float]) -> dict[str, Tensor]:
        """Copy of all users' state, in which the arrays that they predict with are as they were at the best round."""
        own = {name: state[name].clone() for name in self.shapes}
        self.begin(own, range(len(self.users.cohort.client_ids)), announced)
        return own | {name: own[f"best.{name}"] for name in self._kept}

    def predicting(self, own: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """The arrays of a state that users predict with."""
        return {name: own[name].cpu().numpy() for name in self._kept}

    def copied(self, state: Mapping[str, Tensor] | CohortState, positions: Sequence[int]) -> dict[str, Tensor]:
        """A copy of the state of the users at some positions, on the model's device."""
        return {name: state[name][list(positions)].to(self.users.cohort.device) for name in self.shapes}

    def begin(self, own: Mapping[str, Tensor], positions: Sequence[int], announced: Mapping[str, float]) -> None:
        """Give new users their first embeddings, and copy everyone's prediction arrays as of the best round so far.

        Each message of the server says which round that was. A user that has not trained since is still as it was then.
        """
        users = self.users
        for row in torch.nonzero(own["started"] == 0)[:, 0].tolist():
            client_id = users.cohort.client_ids[positions[row]]
            for name, value in users.model.initial_user(users.run.seed, client_id).items():
                own[name][row] = torch.from_numpy(np.asarray(value)).to(own[name])
        own["started"].fill_(1)
        best_round = float(announced.get("best_round", 0))
        outdated = (own["best_round"] != best_round) | (own["best_round"] == 0)
        for name in self._kept:
            own[f"best.{name}"][outdated] = own[name][outdated]
        own["best_round"].fill_(best_round)


@dataclass(frozen=True, eq=False)
class UserRows:
    """The state of some users.

    Attributes:
        states: of all users.
            state: of the cohort.
            positions: of these users in the cohort.
            announced: numbers that the server tells all clients, by name.
    """

    states: UserStates
    state: CohortState
    positions: Sequence[int]
    announced: Mapping[str, float]

    def read(self, name: str) -> Tensor:
        """One state array of all of them [U, ...], as it stands."""
        return self.state[name][list(self.positions)]

    def copied(self) -> dict[str, Tensor]:
        """A copy that is not kept, by name, each [U, ...]."""
        own = self.states.copied(self.state, self.positions)
        self.states.begin(own, self.positions, self.announced)
        return own

    @contextmanager
    def working(self) -> Iterator[dict[str, Tensor]]:
        """Arrays to work on, by name, each [U, ...]; changes are kept if the block succeeds."""
        with self.state.rows(self.positions, self.states.users.cohort.device, tuple(self.states.shapes)) as own:
            self.states.begin(own, self.positions, self.announced)
            yield own
