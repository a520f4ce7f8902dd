from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_clients import ADAM, cohort_of, family_of, kept, parameters_of, tiny_client, trained

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.tasks.choices import NodeClassification

SIZES = (9, 6, 14)


def client(ids: tuple[int, ...] = (0, 1, 2), family: type = SubgraphClient, **task: Any) -> SubgraphClient:
    graphs = [tiny_client(c, SIZES[c]) for c in ids]
    cohort = replace(cohort_of(*graphs), task=NodeClassification(name="node_classification", **task))
    return family_of(family, cohort)


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient])
def test_a_batch_of_all_training_nodes_with_all_neighbours_is_a_full_batch(family: type) -> None:
    whole, sampled = client(family=family), client(family=family, batch_size=50, neighbours=None)
    sent = parameters_of(3)
    expected, found = (trained(one, sent, epochs=3) for one in (whole, sampled))
    for name, values in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[name], values, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(found.metrics["train_loss"], expected.metrics["train_loss"], rtol=1e-5)


def test_an_epoch_has_a_step_for_each_batch_of_training_nodes() -> None:
    # Nodes 0, 3, 6, ... are training nodes: 3, 2 and 5 of them.
    found = client(batch_size=2, neighbours=3)
    trained(found, parameters_of(3), epochs=4)
    assert kept(found, "steps").tolist() == [4 * 2, 4 * 1, 4 * 3]


def test_the_loss_of_an_epoch_is_the_mean_over_its_nodes() -> None:
    """Without a step's effect (a learning rate near 0) batches of 2, 2 and 1 nodes have the loss of all five."""
    graph, losses = tiny_client(0, 14), []
    for task in ({}, {"batch_size": 2, "neighbours": None}):
        cohort = replace(cohort_of(graph), task=NodeClassification(name="node_classification", **task))
        found = family_of(SubgraphClient, cohort, optimizer=ADAM.model_copy(update={"lr": 1e-12}))
        losses.append(trained(found, parameters_of(1)).metrics["train_loss"][0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_client_draws_the_same_wherever_it_runs_and_others_in_another_round() -> None:
    sent = parameters_of(3)
    together = trained(client(batch_size=2, neighbours=1), sent)
    alone = trained(client((1,), batch_size=2, neighbours=1), {name: value[1:2] for name, value in sent.items()})
    later = trained(client(batch_size=2, neighbours=1), sent, server_round=2)
    for name, values in together.arrays.items():
        assert values[1].tolist() == alone.arrays[name][0].tolist()
    assert not np.array_equal(together.arrays["conv1.weight"], later.arrays["conv1.weight"])
