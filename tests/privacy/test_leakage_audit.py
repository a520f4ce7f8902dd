from __future__ import annotations

import numpy as np
import pytest

from subfl_flower.privacy.leakage import (
    LeakageAudit,
    LeakageReport,
    popularity_matching,
    precision_at,
    ranking_auc,
)
from subfl_flower.privacy.pseudo_items import draw_pseudo_items, pseudo_gradients

ITEMS, REAL, PSEUDO, WIDTH = 400, 25, 150, 6


def mask(*items: int, size: int = 5) -> np.ndarray:
    result = np.zeros(size, dtype=bool)
    result[list(items)] = True
    return result


def test_auc_counts_pairs_in_the_right_order() -> None:
    scores = np.array([3.0, 1.0, 2.0, 1.0, 0.0])  # rated 0 and 1: 3 > all 3; 1 > 0, = 1, < 2
    assert ranking_auc(scores, mask(0, 1)) == pytest.approx((3 + 1 + 0.5) / 6)


def test_auc_needs_both_kinds() -> None:
    assert np.isnan(ranking_auc(np.arange(5.0), mask()))
    assert np.isnan(ranking_auc(np.arange(5.0), mask(0, 1, 2, 3, 4)))


def test_precision_expects_over_ties() -> None:
    assert precision_at(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), mask(0, 3)) == pytest.approx(1 / 2)
    # One place is sure, and one is left for the three items with score 2, of which one is rated.
    assert precision_at(np.array([5.0, 2.0, 2.0, 2.0, 1.0]), mask(0, 3)) == pytest.approx((1 + 1 / 3) / 2)
    assert precision_at(np.zeros(5), mask(0, 3)) == pytest.approx(2 / 5)


def test_popularity_ranks_that_agree_name_the_token() -> None:
    assert popularity_matching(np.array([9, 5, 7, 2]), np.array([0.9, 0.5, 0.7, 0.2])) == 1.0
    assert popularity_matching(np.array([9, 5, 7, 2]), np.array([0.9, 0.7, 0.5, 0.2])) == 0.5
    assert popularity_matching(np.array([9, 5, 0, 0]), np.array([0.9, 0.5, 0.7, 0.2])) == 0.5
    assert popularity_matching(np.zeros(3, dtype=int), np.arange(3.0)) == 0.0


def test_popularity_of_equals_is_guessed() -> None:
    """Of the three tokens at ranks 0 to 2 one is, by chance, where public ranks put it: 1/3 each; the last is sure."""
    assert popularity_matching(np.array([4, 4, 4, 1]), np.array([9.0, 8.0, 7.0, 1.0])) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    counts, public = rng.integers(1, 5, 30), rng.integers(1, 5, 30)
    hits = []
    for _ in range(4000):
        token_order = np.lexsort((rng.random(30), -counts))
        item_order = np.lexsort((rng.random(30), -public))
        hits.append((token_order == item_order).mean())
    assert popularity_matching(counts, public) == pytest.approx(np.mean(hits), abs=0.003)


class User:
    """A user whose real gradients change slowly over rounds, as those of ratings do."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng([1, seed])
        self.rated = np.sort(self.rng.choice(ITEMS, REAL, replace=False))
        self._residuals = self.rng.standard_normal(REAL)
        self._own = self.rng.standard_normal(WIDTH)
        self._items = 0.3 * self.rng.standard_normal((REAL, WIDTH))

    def gradients(self) -> np.ndarray:
        self._residuals = 0.98 * self._residuals + 0.2 * self.rng.standard_normal(REAL)
        return (self._residuals[:, None] * self._own + self._items).astype(np.float32)


def audited(rounds: int, pseudo: int = PSEUDO, refresh: bool = False, keep_mixture: bool = True) -> LeakageReport:
    users = [User(seed) for seed in range(12)]
    audit = LeakageAudit(ITEMS)
    for server_round in range(rounds):
        for user in users:
            drawn = server_round if refresh else 0
            items = draw_pseudo_items(user.rated, ITEMS, pseudo, np.random.default_rng([2, user.seed, drawn]))
            mixed = 0 if keep_mixture else server_round
            real = user.gradients()
            rows = pseudo_gradients(real, pseudo, np.random.default_rng([3, user.seed, mixed]))
            audit.add(user.seed, np.concatenate([user.rated, items]), np.concatenate([real, rows]))
    report = audit.report({user.seed: user.rated for user in users})
    assert report is not None
    assert report.users == 12
    assert report.uploads == rounds
    return report


def test_without_pseudo_items_the_server_knows_all() -> None:
    report = audited(1, pseudo=0)
    assert report.share_real == report.presence_auc == 1.0
    for attack in report.attacks.values():
        assert attack.auc_seen is None
        assert attack.precision_seen == attack.auc_all == attack.precision_all == 1.0


@pytest.mark.parametrize("rounds", [1, 20])
def test_fixed_pseudo_items_cannot_be_told_from_real_ones(rounds: int) -> None:
    report = audited(rounds)
    for attack in report.attacks.values():
        assert attack.auc_seen == pytest.approx(0.5, abs=0.06)
    assert report.attacks["intersection"].auc_seen == 0.5
    assert report.share_real == pytest.approx(REAL / (REAL + PSEUDO))
    assert report.attacks["intersection"].precision_seen == pytest.approx(report.share_real)
    # Presence alone: every real item is above those never seen, and level with the pseudo items.
    presence = 1 - PSEUDO / (ITEMS - REAL) / 2
    assert report.presence_auc == pytest.approx(presence)
    assert report.attacks["intersection"].auc_all == pytest.approx(presence)


def test_refreshed_pseudo_items_are_found_by_intersection() -> None:
    one, three, ten = (audited(rounds, refresh=True).attacks["intersection"] for rounds in (1, 3, 10))
    assert one.auc_seen == 0.5
    # A pseudo item of three uploads is in all of them with chance (M / (N - K))^3, and level with real ones then.
    share = PSEUDO / (ITEMS - REAL)
    assert three.auc_all == pytest.approx(1 - share**3 / 2, abs=0.01)
    assert one.auc_seen < three.auc_seen < ten.auc_seen
    assert ten.precision_seen > 0.95


def test_pseudo_gradients_that_are_mixed_anew_each_round_average_out() -> None:
    assert audited(20, keep_mixture=False).attacks["persistence"].auc_seen > 0.85
    assert audited(1, keep_mixture=False).attacks["persistence"].auc_seen == pytest.approx(0.5, abs=0.06)


def test_figures_of_an_audit_by_hand() -> None:
    audit = LeakageAudit(num_items=4)
    audit.add(7, np.array([0, 1]), np.array([[3.0, 4.0], [1.0, 0.0]]))
    audit.add(7, np.array([0, 2]), np.array([[0.0, 1.0], [0.0, 2.0]]))
    report = audit.report({7: np.array([1])})
    assert report is not None
    assert (report.users, report.uploads) == (1, 2.0)
    assert report.share_real == pytest.approx(1 / 3)
    assert report.presence_auc == pytest.approx((1 + 0.5 + 0.5) / 3)  # above item 3, level with 0 and 2
    norms = report.attacks["gradient_norm"]  # 0: (5 + 1) / 2, 1: 1, 2: 2, 3: absent
    assert (norms.auc_seen, norms.precision_seen) == (0.0, 0.0)
    assert norms.auc_all == pytest.approx(1 / 3)
    counts = report.attacks["intersection"]  # 2, 1, 1, 0
    assert counts.auc_seen == pytest.approx(0.25)
    assert counts.auc_all == pytest.approx((1 + 0.5) / 3)
    # Deviations from the means (2, 2) and (0, 1.5), the lengths of their sums over the root of how many there are.
    # Item 0: (1, 2) + (0, -0.5), 1.27; item 1: (-1, -2), 2.24; item 2: (0, 0.5), 0.5.
    persistence = report.attacks["persistence"]
    assert (persistence.auc_seen, persistence.precision_seen) == (1.0, 1.0)


def test_only_so_many_users_are_audited() -> None:
    audit = LeakageAudit(num_items=4, users=2)
    for client in (5, 6, 7, 5):
        audit.add(client, np.array([client - 5]), np.ones((1, 2)))
    report = audit.report({client: np.array([client - 5]) for client in (5, 6, 7)})
    assert report is not None
    assert (report.users, report.uploads) == (2, 1.5)


def test_nothing_to_report_without_rated_items_or_uploads() -> None:
    audit = LeakageAudit(num_items=4)
    assert audit.report({1: np.array([2])}) is None
    audit.add(1, np.array([2]), np.ones((1, 2)))
    audit.add(2, np.zeros(0, dtype=np.int64), np.ones((0, 2)))
    assert audit.report({1: np.zeros(0, dtype=np.int64), 2: np.array([1])}) is None
