"""Functional similarity of clients' models, measured on a random graph that all clients can generate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters, Probe
from subfl_flower.subgraphs.similarity.functional import cosine_similarity
from subfl_flower.subgraphs.similarity.random_graph import stochastic_block_model

_BLOCKS, _NODES_PER_BLOCK, _P_IN, _P_OUT = 5, 100, 0.1, 0.01


def reference_probe(network: GraphNetwork[Any], seed: int, num_features: int) -> Probe:
    """The stochastic block model of FED-PUB (App. B.3) with features N(0, 1), drawn from a run's seed.

    The clients of `method=fedpub` compute their embeddings on this graph by default. Here it is the same for every
    method, also for those that compare models otherwise or not at all, so that runs can be compared.
    """
    rng = shared_generator(seed, "random graph")
    edges = stochastic_block_model(_BLOCKS, _NODES_PER_BLOCK, _P_IN, _P_OUT, rng)
    return network.probe(edges, rng.standard_normal((_BLOCKS * _NODES_PER_BLOCK, num_features), dtype="float32"))


def averaging_similarity(mixing: np.ndarray) -> np.ndarray:
    """Similarity of clients that a mixing matrix was made of, [K, K], up to scale: log(M_ij / M_ii).

    Where M is a softmax over tau S_ij, as in FED-PUB (eq. 3), it is tau (S_ij - S_ii), whatever clients were compared
    by and on which random graph. Minus infinity where a client has no weight for another one.

    Args:
        mixing: [K, K], rows that sum to 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.log(mixing / np.diag(mixing)[:, None])
    return found


def functional_similarity(models: Sequence[Parameters], probe: Probe) -> np.ndarray:
    """Cosine [K, K] of the functional embeddings of K clients' models (FED-PUB, Section 3.2).

    Args:
        models: by client id, each with a leading axis of one.
        probe: the random graph.
    """
    return cosine_similarity(np.concatenate([probe.embed(model).numpy() for model in models]))
