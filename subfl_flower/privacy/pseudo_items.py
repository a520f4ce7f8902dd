r"""Pseudo-interacted items: a user uploads gradients of items that it never rated, to hide the rated ones.

FedGNN (Wu et al., Nature Communications 2022): the pseudo items' gradients are normal with the mean and the covariance
of the real ones. They are drawn as :math:`\bar g + n^{-1/2} Z (G - \bar g)` with G the n real rows and Z standard
normal, which has exactly these moments.

Two things reveal pseudo items over rounds. Real items return each round, but items that are drawn again each round do
not: so a user draws them once a run. And if Z is drawn again each round, the gradients of a pseudo item average out to
the mean row, but those of a real one do not: so the generator should depend on user and run only, and restart each
round. Then Z stays while G changes, and the covariance of a pseudo item's rows *between* rounds is that of real rows.
For histories of more than 1,024 items, Z combines a triangular root of the covariance instead of the rows themselves:
the same distribution within a round, and nearly so between rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_ROOT_ROWS = 1024  # most columns of Z, the floats drawn for each pseudo item


def draw_pseudo_items(rated: np.ndarray, num_items: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Items that a user has not rated, drawn uniformly without replacement.

    Args:
        rated: int `[n]`, the items of the user, of 0 .. num_items - 1.
        num_items: of the catalogue.
        count: number of items to draw; the result has fewer where fewer are unrated.
        rng: the user's generator, from a seed that the server does not know (`seeding.secret_generator`).

    Returns:
        int64, ascending.
    """
    unrated = np.ones(num_items, dtype=bool)
    unrated[rated] = False
    candidates = np.flatnonzero(unrated)
    if count >= len(candidates):
        return candidates
    return np.sort(rng.choice(candidates, count, replace=False, shuffle=False))


def pseudo_gradients(real: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Normal rows with the mean and the covariance (normalised by n) of a user's real gradients.

    Args:
        real: float32 `[n, width]`.
        count: number of rows to draw.
        rng: the user's generator.

    Returns:
        float32 `[count, width]`: the row itself for n = 1, zeros for n = 0.
    """
    n, width = real.shape
    if n == 0:
        return np.zeros((count, width), dtype=np.float32)
    mean = real.mean(0, dtype=np.float64).astype(np.float32)
    root = (real - mean) / np.float32(np.sqrt(n))
    if n > max(width, MOST_ROOT_ROWS):  # the triangle R of root = Q R has the same R^T R, the covariance, in fewer rows
        root = np.linalg.qr(root, mode="r")
        root *= np.copysign(np.float32(1), np.diag(root))[:, None]  # R is unique up to the signs of its rows
    drawn: np.ndarray = rng.standard_normal((count, len(root)), dtype=np.float32) @ root
    drawn += mean
    return drawn


def with_norms_of(drawn: np.ndarray, real: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Rows scaled so that their Euclidean norms have the distribution of the real rows' norms.

    Real gradients have heavier tails than normal rows of the same covariance, whose norms would reveal them. Also, a
    real item with a small gradient in one round has a small one in the next. So a pseudo item keeps its rank of norm.

    Args:
        drawn: float32 `[count, width]`.
        real: float32 `[n, width]`.
        ranks: rank of each drawn row among the norms, from 0 to 1 `[count]`; constant over rounds.

    Returns:
        float32 `[count, width]`; as drawn where there is no real row.
    """
    if not len(real) or not len(drawn):
        return drawn
    norms = np.maximum(np.linalg.norm(drawn, axis=1), np.finfo(np.float32).tiny)
    wanted = np.quantile(np.linalg.norm(real, axis=1), ranks)
    scaled: np.ndarray = drawn * (wanted / norms).astype(np.float32)[:, None]
    return scaled


def stacked_pseudo_gradients(
    real: np.ndarray,
    offsets: np.ndarray,
    counts: np.ndarray,
    rngs: Sequence[np.random.Generator],
    ranks: np.ndarray | None = None,
) -> np.ndarray:
    """The pseudo gradients of U users, each as by `pseudo_gradients` with the user's generator; equal in any grouping.

    Args:
        real: float32 `[R, width]`, the real rows of all users, one user's after the other's.
        offsets: int64 `[U + 1]`; user u has the rows `offsets[u]` to `offsets[u + 1]`.
        counts: int64 `[U]`, number of rows to draw for each user.
        rngs: one generator a user.
        ranks: ranks of all rows among the norms of their user's real ones (`with_norms_of`), `[sum of counts]`; None:
            leave norms as they are drawn.

    Returns:
        float32 `[sum of counts, width]`, one user's after the other's.
    """
    ends = np.cumsum(counts)
    drawn = np.empty((int(counts.sum()), real.shape[1]), dtype=np.float32)
    for user, rng in enumerate(rngs):
        own = real[offsets[user] : offsets[user + 1]]
        place = slice(ends[user] - counts[user], ends[user])
        rows = pseudo_gradients(own, int(counts[user]), rng)
        drawn[place] = rows if ranks is None else with_norms_of(rows, own, ranks[place])
    return drawn
