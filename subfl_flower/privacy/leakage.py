"""Audit of the ratings that an honest-but-curious server recovers from uploads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

UNSEEN = -1.0
ATTACKS = ("gradient_norm", "intersection", "persistence")


@dataclass(frozen=True)
class AttackResult:
    """Quality of one attack's ranking of items, mean over audited users.

    Attributes:
        auc_seen: area under the ROC curve of real against pseudo items, among the items whose rows the server ever saw
            of the user; 0.5 is chance. None where every user uploaded real items alone.
        precision_seen: share of real items among the n ranked first of those seen, n being the number of real ones.
        auc_all: among all items of the catalogue; those never seen are ranked last.
        precision_all: as `precision_seen`, among all items.
    """

    auc_seen: float | None
    precision_seen: float | None
    auc_all: float | None
    precision_all: float | None


@dataclass(frozen=True)
class LeakageReport:
    """Results of all attacks on the audited users.

    Attributes:
        users: number of audited users who uploaded and rated anything.
        uploads: mean number of uploads of a user.
        share_real: mean share of real items among those seen, the precision of guessing among them.
        presence_auc: `auc_all` of an attack that knows only the items seen.
        attacks: by name; see `LeakageAudit`.
    """

    users: int
    uploads: float | None
    share_real: float | None
    presence_auc: float | None
    attacks: dict[str, AttackResult]


def ranking_auc(scores: np.ndarray, rated: np.ndarray) -> float:
    """Area under the ROC curve of ranking rated items first; NaN where all or none are rated.

    Args:
        scores: float `[items]`, higher means more likely rated.
        rated: bool `[items]`.
    """
    if rated.all() or not rated.any():
        return float("nan")
    from sklearn.metrics import roc_auc_score  # takes a second to import, and most runs audit nobody

    return float(roc_auc_score(rated, scores))


def precision_at(scores: np.ndarray, rated: np.ndarray) -> float:
    """Share of rated items among the n with the highest scores, n = number of rated ones; expected value over ties.

    Args:
        scores: float `[items]`.
        rated: bool `[items]`, at least one.
    """
    count = int(rated.sum())
    last = np.partition(scores, -count)[-count]
    above, tied = scores > last, scores == last
    return float((rated[above].sum() + (count - above.sum()) * rated[tied].mean()) / count)


def popularity_matching(token_counts: np.ndarray, public_popularity: np.ndarray) -> float:
    """Share of tokens that are identified by matching popularity ranks: the attack of the matcher.

    Tokens are ranked by their number of users, items by a publicly known popularity; equal ranks are matched.
    Ties are broken at random on both sides, and the expected share is returned.

    Args:
        token_counts: int `[items]`, number of users who sent the item's token; items with 0 are not counted.
        public_popularity: float `[items]`.
    """
    sent = token_counts > 0
    if not sent.any():
        return 0.0
    first, last = _rank_interval(token_counts)
    public_first, public_last = _rank_interval(public_popularity)
    overlap = np.clip(np.minimum(last, public_last) - np.maximum(first, public_first), 0, None)
    chance = overlap / ((last - first) * (public_last - public_first))
    return float(chance[sent].mean())


def _rank_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First rank of an item, from 0 for the largest value, and the rank after its last one, over all orders of ties."""
    ascending = np.sort(values)
    first = len(values) - np.searchsorted(ascending, values, side="right")
    last = len(values) - np.searchsorted(ascending, values, side="left")
    return first, last


class _Seen:
    """The server's record of one user: sums over its uploads, by item."""

    def __init__(self, num_items: int, width: int) -> None:
        self.uploads = 0
        self.counts = np.zeros(num_items, dtype=np.int64)
        self.norms = np.zeros(num_items)
        self.deviations = np.zeros((num_items, width), dtype=np.float32)

    def add(self, ids: np.ndarray, rows: np.ndarray) -> None:
        self.uploads += 1
        self.counts[ids] += 1
        self.norms[ids] += np.linalg.norm(rows, axis=1)
        self.deviations[ids] += rows - rows.mean(0)

    def scores(self) -> dict[str, np.ndarray]:
        """Scores `[items]` by attack."""
        seen = self.counts > 0
        times = np.maximum(self.counts, 1)
        persistence = np.linalg.norm(self.deviations, axis=1) / np.sqrt(times)
        return {
            "gradient_norm": np.where(seen, self.norms / times, UNSEEN),
            "intersection": self.counts.astype(np.float64),
            "persistence": np.where(seen, persistence, UNSEEN),
        }


class LeakageAudit:
    """Audit of some users' uploads: it records them as a server could, and reports what attacks recover.

    Three attacks rank a user's items: ``gradient_norm`` by the mean L2 norm of their rows, ``intersection`` by the
    number of uploads with a row for them, ``persistence`` by the norm of their summed rows, each less the mean row of
    its upload (noise and gradients drawn again each round average out, those of real items do not).

    A ranking of the *whole catalogue* puts items without a row last. Where rows are sent for some items alone, its AUC
    is above 0.5 before any attack (`presence_auc`), because no real item lacks a row. It measures what the server
    learns about a user. The ranking of *items seen*, real against pseudo, measures if rows reveal more than their
    presence; this one should stay at 0.5.

    Memory is `num_items` times the rows' width for each audited user.

    Args:
        num_items: of the catalogue.
        users: most users to audit: the first that upload.
    """

    def __init__(self, num_items: int, users: int = 50) -> None:
        self._num_items = num_items
        self._users = users
        self._seen: dict[int, _Seen] = {}

    def add(self, client_id: int, ids: np.ndarray, rows: np.ndarray) -> None:
        """Record one upload, as the server sees it.

        Args:
            client_id: id of the user.
            ids: int `[n]`, the items of the rows, distinct.
            rows: float `[n, width]`.
        """
        if len(ids) == 0:
            return
        if client_id not in self._seen:
            if len(self._seen) == self._users:
                return
            self._seen[client_id] = _Seen(self._num_items, rows.shape[1])
        self._seen[client_id].add(ids, rows)

    def report(self, rated: Mapping[int, np.ndarray]) -> LeakageReport | None:
        """Results of the attacks, given the truth; None where no audited user rated anything.

        Args:
            rated: the items that users trained on, by client id; users who are not in it are left out.
        """
        audited = [(seen, self._mask(rated[user])) for user, seen in self._seen.items() if len(rated.get(user, ()))]
        if not audited:
            return None
        return LeakageReport(
            users=len(audited),
            uploads=_mean([seen.uploads for seen, _ in audited]),
            share_real=_mean([float(real[seen.counts > 0].mean()) for seen, real in audited]),
            presence_auc=_mean([ranking_auc(seen.counts > 0, real) for seen, real in audited]),
            attacks={attack: _result(audited, attack) for attack in ATTACKS},
        )

    def _mask(self, items: np.ndarray) -> np.ndarray:
        mask = np.zeros(self._num_items, dtype=bool)
        mask[items] = True
        return mask


def _result(audited: Sequence[tuple[_Seen, np.ndarray]], attack: str) -> AttackResult:
    figures: dict[str, list[float]] = {"auc_seen": [], "precision_seen": [], "auc_all": [], "precision_all": []}
    for user, real in audited:
        scores, seen = user.scores()[attack], user.counts > 0
        figures["auc_all"].append(ranking_auc(scores, real))
        figures["precision_all"].append(precision_at(scores, real))
        if real[seen].any():
            figures["auc_seen"].append(ranking_auc(scores[seen], real[seen]))
            figures["precision_seen"].append(precision_at(scores[seen], real[seen]))
    return AttackResult(**{name: _mean(values) for name, values in figures.items()})


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the values that are not NaN; None if there are none."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else None
