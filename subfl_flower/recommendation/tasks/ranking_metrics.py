r"""Hit rate and NDCG of each user's held-out item, among drawn items and among all (He et al., WWW 2017, section 4.1).

With one relevant item, of rank r = 0, 1, .. among its candidates, HR@k is 1 where r < k and else 0, and NDCG@k is
1 / log2(r + 2) where r < k and else 0. The ranking is by score, and equal scores are in random order: the figures are
the expected values over these orders, so that a model that scores all of n candidates alike has HR@k = k / n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.popularity import popularity
from subfl_flower.seeding import client_generator

if TYPE_CHECKING:
    from subfl_flower.recommendation.tasks.ranking import Ranking

ROLES = {"validation": VALIDATION, "test": TEST}
_USERS_AT_ONCE = 1024


def ranks(
    positive: np.ndarray, others: np.ndarray, competing: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of other items above and level with the positive one, `(above, tied)`, int64 `[Q]` each.

    An item whose score is NaN stands above the positive one, and so do all where the positive one's is NaN: a model
    that has diverged gains nothing by it.

    Args:
        positive: scores of one item a query, `[Q]`; larger is better.
        others: scores of the items that it is ranked among, `[Q, N]`.
        competing: flags of those that count, bool `[Q, N]`; without it all.
    """
    below, tied = others < positive[:, None], others == positive[:, None]
    if competing is not None:
        below &= competing
        tied &= competing
    total = others.shape[1] if competing is None else np.count_nonzero(competing, axis=1)
    num_tied = np.count_nonzero(tied, axis=1)
    return total - np.count_nonzero(below, axis=1) - num_tied, num_tied


def hit_rate(above: np.ndarray, tied: np.ndarray, k: int) -> np.ndarray:
    """Expected HR@k, float64 `[Q]`: the share of the ranks above .. above + tied that are below k.

    Args:
        above: number of items above the positive one, `[Q]`.
        tied: number of items level with it, `[Q]`.
        k: length of the list.
    """
    hits: np.ndarray = np.clip((k - above) / (tied + 1), 0.0, 1.0)
    return hits


def ndcg(above: np.ndarray, tied: np.ndarray, k: int) -> np.ndarray:
    """Expected NDCG@k, float64 `[Q]`: the mean gain over the ranks above .. above + tied; arguments as of `hit_rate`.

    The best that can be reached is 1, with the one relevant item in the first place.
    """
    gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])  # of the ranks below 0, 1, .., k
    first, behind = np.minimum(above, k), np.minimum(above + tied + 1, k)
    expected: np.ndarray = (gains[behind] - gains[first]) / (tied + 1)
    return expected


_GAINS = {"hr": hit_rate, "ndcg": ndcg}
_AMONG = ("", "full_")
"""Names of figures among drawn items and among all."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Items that users never rated, among which their held-out items are ranked.

    Attributes:
        validation, test: int32 `[users, width]`, the width being the most that a user has; -1 behind the last item of a
            user who has rated so much that fewer are left.
    """

    validation: np.ndarray
    test: np.ndarray

    def of_users(self, positions: Sequence[int] | np.ndarray) -> Candidates:
        """Candidates of some users, in the order of `positions`.

        Args:
            positions: of the users in these arrays, not their ids.
        """
        chosen = np.asarray(positions, dtype=np.int64)
        return Candidates(self.validation[chosen], self.test[chosen])


def draw_candidates(ratings: Ratings, count: int, seed: int) -> Candidates:
    """Draw for each user `count` different items to validate with and as many to test with, the same wherever drawn.

    They are uniform over the items that the user rated in no role. Where fewer than `count` are left, all are taken.

    Args:
        ratings: of the users, all their roles.
        count: at least 1.
        seed: together with the user's id, the number of items and the rated ones, all that the draw depends on.
    """
    unrated = ratings.num_items - np.diff(ratings.offsets)
    drawn = np.full((len(ROLES), ratings.num_users, min(count, int(unrated.max(initial=0)))), -1, dtype=np.int32)
    for position, (user_id, left) in enumerate(zip(ratings.user_ids.tolist(), unrated.tolist(), strict=True)):
        rated = ratings.items[ratings.offsets[position] : ratings.offsets[position + 1]]
        unrated_before = rated - np.arange(len(rated))  # how many unrated items stand before each rated one
        rng = client_generator(seed, user_id, 0, "ranking negatives")
        for of_role in drawn:
            places = rng.choice(left, min(count, left), replace=False, shuffle=False)
            of_role[position, : len(places)] = places + np.searchsorted(unrated_before, places, side="right")
    return Candidates(*drawn)


def user_figures(
    scores: np.ndarray, ratings: Ratings, task: Ranking, candidates: Candidates | None = None
) -> dict[str, np.ndarray]:
    """Each user's figures by name, float64 `[U]`, NaN where a user has no item of the role.

    Args:
        scores: of all items for each user, `[U, num_items]`; larger is better.
        ratings: of these U users, all their roles.
        task: the cutoffs k, the figure that is the task's metric, and the number and seed of the drawn candidates.
        candidates: of these U users, where they have been drawn; else they are drawn again.

    Returns:
        For the roles ``validation`` and ``test``: under the role's own name the task's metric; ``test.hr@10`` and
        ``test.ndcg@10`` at every cutoff, among the candidates; ``test.full_hr@10`` and ``test.full_ndcg@10`` among all
        items but those already known by then: the training items, and for the test also the validation items. Of
        several held-out items of a user a figure is the mean, so that the hit rate among all items is Recall@k; there
        they compete with each other.

    Raises:
        ValueError: the scores are not of these users and all items.
    """
    if scores.shape != (ratings.num_users, ratings.num_items):
        raise ValueError(f"scores must be {[ratings.num_users, ratings.num_items]}, not {list(scores.shape)}")
    candidates = candidates or draw_candidates(ratings, task.negatives, task.seed)
    unseen = _not_trained_on(ratings)
    figures: dict[str, np.ndarray] = {}
    for role, drawn in (("validation", candidates.validation), ("test", candidates.test)):
        own = ratings.roles == ROLES[role]
        counts = ratings.counts(ROLES[role])
        sums = {
            f"{prefix}{name}@{k}": np.zeros(len(counts)) for prefix in _AMONG for name in _GAINS for k in task.cutoffs
        }
        for items in _held_out(ratings, role):
            users = np.flatnonzero(items >= 0)
            items = items[users]
            of_users, competing = scores[users], unseen[users]
            competing[np.arange(len(users)), items] = False  # it does not compete with itself
            positive = of_users[np.arange(len(users)), items]
            chosen = drawn[users]
            among = np.take_along_axis(
                of_users, chosen.astype(np.int64), axis=1
            )  # -1 takes any item: it does not count
            for prefix, (above, tied) in zip(
                _AMONG, (ranks(positive, among, chosen >= 0), ranks(positive, of_users, competing)), strict=True
            ):
                for name, gain in _GAINS.items():
                    for k in task.cutoffs:
                        sums[f"{prefix}{name}@{k}"][users] += gain(above, tied, k)
        unseen[ratings.users()[own], ratings.items[own]] = False  # nor in what comes later
        with np.errstate(invalid="ignore"):
            figures |= {f"{role}.{name}": total / counts for name, total in sums.items()}
        figures[role] = figures[f"{role}.{task.metric}"]
    return figures


def _not_trained_on(ratings: Ratings) -> np.ndarray:
    """Flags of the items that are not among each user's training items, bool `[U, num_items]`."""
    found = np.ones((ratings.num_users, ratings.num_items), dtype=bool)
    training = ratings.roles == TRAIN
    found[ratings.users()[training], ratings.items[training]] = False
    return found


def _held_out(ratings: Ratings, role: str) -> Iterator[np.ndarray]:
    """Each user's first item of a role, int64 `[U]`, -1 where a user has none; then each one's second, and so on."""
    rows = np.flatnonzero(ratings.roles == ROLES[role])
    owners = ratings.users()[rows]
    places = np.arange(len(rows)) - np.searchsorted(owners, owners)
    for place in range(int(places.max(initial=-1)) + 1):
        chosen = places == place
        items = np.full(ratings.num_users, -1, dtype=np.int64)
        items[owners[chosen]] = ratings.items[rows[chosen]]
        yield items


def validation_ranks(scores: np.ndarray, ratings: Ratings) -> np.ndarray:
    """The expected rank, from 0, of each user's validation item among all items but its training items, float64 `[U]`.

    Of several validation items of a user it is the mean of the ranks.

    Args:
        scores: of all items for each user, `[U, num_items]`; larger is better.
        ratings: of these U users, all their roles.

    Returns:
        0 for a user without a validation item, whatever the scores.
    """
    unseen = _not_trained_on(ratings)
    total = np.zeros(ratings.num_users)
    for items in _held_out(ratings, "validation"):
        users = np.flatnonzero(items >= 0)
        items = items[users]
        competing = unseen[users]
        competing[np.arange(len(users)), items] = False
        above, tied = ranks(scores[users, items], scores[users], competing)
        total[users] += above + tied / 2
    mean: np.ndarray = total / np.maximum(ratings.counts(VALIDATION), 1)
    return mean


def popularity_figures(ratings: Ratings, task: Ranking) -> dict[str, float | None]:
    """The mean over all users of each figure of `user_figures`, by name, where items are ranked by popularity.

    Args:
        ratings: of all users.
        task: the task that is measured.
    """
    counts = popularity(ratings)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, ratings.num_users, _USERS_AT_ONCE):
        users = ratings.of_users(range(start, min(start + _USERS_AT_ONCE, ratings.num_users)))
        parts.append(user_figures(np.broadcast_to(counts, (users.num_users, len(counts))), users, task))
    figures = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: task.over_clients(figures, name) for name in figures}
