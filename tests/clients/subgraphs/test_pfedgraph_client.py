"""pFedGraph's local term: the gradient of a cosine by hand, and its effect on training."""

from __future__ import annotations

import numpy as np
import torch
from tiny_clients import cohort_of, family_of, parameters_of, tiny_client, trained

from subfl_flower.clients.subgraphs.pfedgraph import PFedGraphClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.wire.array_format import Stack


def client(cosine: float, chunk: int | str = "all") -> PFedGraphClient:
    graphs = tiny_client(0, 9), tiny_client(1, 6)
    return family_of(PFedGraphClient, cohort_of(*graphs, chunk=chunk), {"cosine": cosine})


def added(shared: list[list[float]], received: list[list[float]], server_round: int = 2) -> np.ndarray:
    """Gradient of the term with λ = 5 for two clients, whose parameters are two arrays of one entry."""
    of, names = client(5.0), ("conv1.bias", "conv2.bias")
    one, other = (
        {name: torch.tensor(values)[:, place : place + 1] for place, name in enumerate(names)}
        for values in (shared, received)
    )
    gradients = {name: torch.ones(2, 1) for name in names}
    of.weights.add_penalty_gradients(gradients, one, {}, other, of.graph_chunk([0, 1]), server_round)
    return torch.cat(list(gradients.values()), 1).numpy() - 1


def test_the_term_turns_a_model_towards_the_received_one() -> None:
    """θ = (3, 4) and θ̄ = (2, 0): cos 3/5, and (1/5) · ((1, 0) - 3/5 · (3/5, 4/5)) = (0.128, -0.096)."""
    found = added([[3.0, 4.0], [1.0, 2.0]], [[2.0, 0.0], [3.0, 6.0]])
    np.testing.assert_allclose(found, [[-0.64, 0.48], [0, 0]], atol=1e-6)


def test_the_term_is_absent_in_the_first_round_and_where_a_model_is_zero() -> None:
    np.testing.assert_array_equal(added([[3.0, 4.0], [1.0, 2.0]], [[2.0, 0.0], [3.0, 5.0]], server_round=1), 0)
    np.testing.assert_array_equal(added([[0.0, 0.0], [1.0, 2.0]], [[2.0, 0.0], [0.0, 0.0]]), 0)


def turned(result: Stack, sent: Stack) -> np.ndarray:
    """Angles between the models sent and trained."""
    one, other = (np.concatenate([values[name].reshape(2, -1) for name in sent], 1) for values in (result, sent))
    return np.arccos((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1))


def test_a_large_weight_keeps_the_direction_and_none_is_fedavg() -> None:
    sent = parameters_of(2)
    plain = family_of(SubgraphClient, cohort_of(tiny_client(0, 9), tiny_client(1, 6)))
    fedavg = trained(plain, sent, 2, epochs=8).arrays
    without, with_term = (trained(client(weight), sent, 2, epochs=8).arrays for weight in (0.0, 1000.0))
    for name, values in fedavg.items():
        np.testing.assert_array_equal(without[name], values)
    assert (turned(with_term, sent) < turned(without, sent) / 2).all()


def test_chunks_change_nothing() -> None:
    sent = parameters_of(2)
    together, single = (trained(client(3.0, chunk), sent, 2, epochs=3).arrays for chunk in ("all", 1))
    for name, values in together.items():
        np.testing.assert_allclose(single[name], values, atol=1e-5)
