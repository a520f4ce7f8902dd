"""FedGTA's uploads: moments and confidence by hand, and against dense matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_clients import (
    CLASSES,
    cohort_of,
    dense_features,
    dense_gcn,
    dense_operator,
    family_of,
    parameters_of,
    tiny_client,
    trained,
)

from subfl_flower.clients.subgraphs.fedgta import FedGTAClient, mixed_moments, smoothing_confidence


def test_moments_are_means_of_powers_raw_and_centred_over_a_clients_nodes() -> None:
    """Nodes 0.2 and 0.6 of one class: mean 0.4, of squares (0.04 + 0.36) / 2, centred squares 0.04, cubes 0.112."""
    label = torch.tensor([[[0.2], [0.6], [9.0]], [[0.5], [9.0], [9.0]]])
    own = torch.tensor([[[1.0], [1.0], [0.0]], [[1.0], [0.0], [0.0]]])
    found = mixed_moments(label, own, orders=3)
    np.testing.assert_allclose(found, [[0.4, 0, 0.2, 0.04, 0.112, 0], [0.5, 0, 0.25, 0, 0.125, 0]], atol=1e-7)


def test_confidence_is_the_degree_weighted_negative_entropy_above_its_least_value() -> None:
    """One certain node of degree 3: classes 1 and 0 give 3 · 2 / e. At 1/e and 1 a class's terms are 0 and 1/e."""
    label = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[math.exp(-1), 1.0], [0.3, 0.7]]])
    degrees = torch.tensor([[[3.0], [0.0]], [[2.0], [0.0]]])
    np.testing.assert_allclose(smoothing_confidence(label, degrees), [[6 / math.e], [2 / math.e]], rtol=1e-6)


@pytest.mark.parametrize("chunk", ["all", 1])
def test_uploads_are_moments_and_confidence_of_propagated_predictions(chunk: int | str) -> None:
    """Two clients, padded to the larger one, against dense matrices in double precision."""
    graphs = [tiny_client(0, 9), tiny_client(1, 6)]
    settings = {"steps": 2, "alpha": 0.25, "orders": 2}
    client = family_of(FedGTAClient, cohort_of(*graphs, chunk=chunk), settings)
    result = trained(client, parameters_of(2), epochs=2)
    assert result.failures == {}
    for row, graph in enumerate(graphs):
        operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes))
        sent = {name: torch.from_numpy(values[row]).double() for name, values in result.arrays.items()}
        parameters = {name: sent[name] for name in client.model.shapes}
        logits, _ = dense_gcn(parameters, operator, torch.from_numpy(dense_features(graph)).double())
        start = label = logits.softmax(1).numpy()
        moments = []
        for _ in range(2):
            label = 0.25 * start + 0.75 * operator.numpy() @ label
            centred = label - label.mean(0)
            moments += [label.mean(0), centred.mean(0), (label**2).mean(0), (centred**2).mean(0)]
        degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
        confidence = (degrees[:, None] * (1 / math.e + label * np.log(label))).sum()
        np.testing.assert_allclose(result.arrays["mixed_moments"][row], np.concatenate(moments), atol=1e-5)
        np.testing.assert_allclose(result.arrays["smoothing_confidence"][row], [confidence], rtol=1e-4)
    assert result.arrays["mixed_moments"].shape == (2, 2 * 2 * 2 * CLASSES)


def test_the_contract_declares_what_is_sent() -> None:
    client = family_of(FedGTAClient, cohort_of(tiny_client(0, 9)), {"steps": 2, "orders": 3})
    contract = client.contract(client.run)
    sent = trained(client, parameters_of(1)).arrays
    assert {name: values.shape[1:] for name, values in sent.items()} == {
        name: spec.shape for name, spec in contract.uploads.items()
    }
    assert contract.uploads["mixed_moments"].shape == (2 * 3 * 2 * CLASSES,)
    assert set(contract.downloads) == set(client.model.shapes)
