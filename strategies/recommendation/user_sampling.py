"""Participation of users: the draw of a round's users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subfl_flower.recommendation.user_clusters import proportional, representatives
from subfl_flower.seeding import round_generator
from subfl_flower.server.participation import Participation, drawable
from subfl_flower.wire.contract import RunContext

_ROUNDS_OF_A_USER, _FEWEST = 40, 128
"""Rounds of a run that each user takes part in on average, and the fewest users of a round, by `auto`."""


class RandomUsers:
    """Draw `users_per_round` users without replacement, or the configuration's fraction of them.

    Args:
        run: facts of the run.
        num_users: number of all users.
    """

    def __init__(self, run: RunContext, num_users: int) -> None:
        self._participation = Participation(run.fraction, run.seed)
        self._seed, self._num_users = run.seed, num_users
        said = run.settings.users_per_round
        self._per_round: int | None = _users_by_rule(num_users, run.num_rounds) if said == "auto" else said

    @property
    def count(self) -> int:
        """Number of users in a round; all users where there are no more."""
        return self._per_round or self._participation.count(self._num_users)

    def draw(self, server_round: int, present: Sequence[int] | None = None) -> Sequence[int]:
        """Positions of a round's users, ascending.

        Args:
            server_round: 1-based.
            present: positions of users who can be asked, as in `Participation.draw`.
        """
        if self._per_round is None:
            return self._participation.draw(server_round, self._num_users, present)
        if self._per_round >= self._num_users:
            return range(self._num_users)
        among = drawable(self._num_users, present)
        count = min(self._per_round, len(among))
        drawn = self.generator(server_round).choice(len(among), count, replace=False, shuffle=False)
        chosen: list[int] = np.sort(among[drawn]).tolist()
        return chosen

    def generator(self, server_round: int) -> np.random.Generator:
        """The generator of a round's draw."""
        return round_generator(self._seed, server_round, "participation")


def _users_by_rule(num_users: int, num_rounds: int | None) -> int:
    """Users of a round such that each takes part in 40 rounds of the run on average; at least 128."""
    return max(_FEWEST, round(_ROUNDS_OF_A_USER * num_users / num_rounds)) if num_rounds else _FEWEST


class ClusterUsers(RandomUsers):
    """Draw users by their clusters (settings: `ClusterSettings.selection`); at random before the first clustering."""

    def __init__(self, run: RunContext, num_users: int) -> None:
        super().__init__(run, num_users)
        self._settings = run.settings

    def draw_from(
        self,
        server_round: int,
        labels: np.ndarray,
        distances: np.ndarray,
        taken: np.ndarray,
        present: Sequence[int] | None = None,
    ) -> Sequence[int]:
        """Positions of a round's users, ascending.

        Args:
            server_round: 1-based.
            labels: cluster of each user [K]; negative: none.
            distances: of each user to its centroid [K].
            taken: number of rounds that each user has taken part in [K].
            present: positions of users who can be asked, as in `Participation.draw`.
        """
        if self._settings.selection == "random" or not (labels >= 0).any():
            return self.draw(server_round, present)
        generator, available = self.generator(server_round), drawable(len(labels), present)
        if self._settings.selection == "size":
            within: list[int] = proportional(labels, self.count, generator, available=available).tolist()
            return within
        chosen: list[int] = representatives(
            distances,
            labels,
            self.count,
            generator,
            share=self._settings.representative_share,
            available=available,
            taken=taken,
        ).tolist()
        return chosen
