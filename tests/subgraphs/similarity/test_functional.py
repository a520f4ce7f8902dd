from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_clients import FEATURES, dense_gcn, dense_operator, model, random_parameters

from subfl_flower.subgraphs.similarity.functional import cosine_similarity
from subfl_flower.subgraphs.similarity.random_graph import stochastic_block_model

NODES = 30


@pytest.fixture(scope="module")
def random_graph() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return stochastic_block_model(3, 10, 0.4, 0.05, rng), rng.standard_normal((NODES, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("zero_rows", [[], [2], [0, 1, 3, 5], list(range(FEATURES))], ids=len)
def test_embedding_is_the_mean_of_the_last_convolution_before_its_relu(
    random_graph: tuple[np.ndarray, np.ndarray], layers: int, clients: int, zero_rows: list[int]
) -> None:
    edges, features = random_graph
    parameters = random_parameters(model(layers), clients)
    parameters["conv1.weight"][0, zero_rows] = 0.0
    parameters["conv1.weight"][0, 4, 1:] = 0.0  # a row that is not all zero
    embedded = model(layers).probe(edges, features).embed(parameters)
    operator = torch.from_numpy(dense_operator(edges, NODES))
    for c in range(clients):
        own = {name: value[c].double() for name, value in parameters.items()}
        _, before_relu = dense_gcn(own, operator, torch.from_numpy(features).double())
        torch.testing.assert_close(embedded[c].double(), before_relu.mean(0), atol=1e-5, rtol=1e-5)
    assert embedded.shape == (clients, 5) and not embedded.requires_grad


def test_cosines_by_hand() -> None:
    rows = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0], [0.0, 0.0], [-5.0, 0.0]])
    expected = [
        [1, 0.6, 0, 0, -1],
        [0.6, 1, -0.8, 0, -0.6],
        [0, -0.8, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [-1, -0.6, 0, 0, 1],
    ]
    np.testing.assert_allclose(cosine_similarity(rows), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-43, 1e-30, 1e-23, 1.0, 1e12, 1e30])
def test_cosines_of_rows_whose_squares_no_float_holds(scale: float) -> None:
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.standard_normal((2, 2000)), scale * rng.standard_normal((2, 2000))]).astype(np.float32)
    rows[3] = rows[2] * 2
    exact = rows.astype(np.float64)  # tiny numbers have been rounded
    expected = exact @ exact.T / np.outer(np.linalg.norm(exact, axis=1), np.linalg.norm(exact, axis=1))
    similarity = cosine_similarity(rows)
    np.testing.assert_allclose(similarity, expected, atol=1e-5)
    assert (np.abs(similarity) <= 1).all()


def test_a_block_model_with_certain_edges_is_known_edge_by_edge() -> None:
    edges = stochastic_block_model(2, 3, 1.0, 0.0, np.random.default_rng(0))
    expected = {(a, b) for block in ([0, 1, 2], [3, 4, 5]) for a in block for b in block if a != b}
    assert edges.shape == (2, len(expected)) and set(zip(*edges.tolist(), strict=True)) == expected


def test_a_block_model_has_the_stated_densities_and_is_simple() -> None:
    blocks, size, p_in, p_out = 5, 100, 0.1, 0.01
    edges = stochastic_block_model(blocks, size, p_in, p_out, np.random.default_rng(3))
    pairs = set(zip(*edges.tolist(), strict=True))
    assert len(pairs) == edges.shape[1]
    assert all(a != b and (b, a) in pairs for a, b in pairs)
    inside = int((edges[0] // size == edges[1] // size).sum()) // 2
    between = edges.shape[1] // 2 - inside
    for found, possible, p in (
        (inside, blocks * size * (size - 1) // 2, p_in),
        (between, size**2 * blocks * (blocks - 1) // 2, p_out),
    ):
        assert abs(found - possible * p) < 5 * (possible * p * (1 - p)) ** 0.5
    again = stochastic_block_model(blocks, size, p_in, p_out, np.random.default_rng(3))
    np.testing.assert_array_equal(edges, again)
