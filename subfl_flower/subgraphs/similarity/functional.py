r"""Functional similarity: two models are similar if their outputs on one random graph are (FED-PUB, Section 3.2).

The functional embedding of client i is :math:`h_i = \frac{1}{N} \sum_v f(\tilde G; \theta_i \odot \mu_i)_v` (SubPFed,
eq. 4, without the mask µ). f is the network's `GraphNetwork.embedding`: of the stacked networks the output of the last
convolution before its ReLU, without dropout.
"""

from __future__ import annotations

import numpy as np


def cosine_similarity(embeddings: np.ndarray) -> np.ndarray:
    """Cosines [K, K] between the rows of `embeddings` [K, width]; a zero row is similar to nothing but itself."""
    # Scaled first, so that no square is too large or too small for its type.
    largest = np.abs(embeddings).max(axis=1, initial=0, keepdims=True)
    scaled = embeddings / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit = scaled / np.where(norms > 0, norms, 1)
    similarity: np.ndarray = np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(similarity, 1.0)
    return similarity
