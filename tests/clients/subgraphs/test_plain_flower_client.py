"""Subgraph clients as Flower's own strategies drive a ``NumPyClient``: one model, without a client axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_clients import cohort_of, family_of, model, parameters_of, tiny_client

from subfl_flower.clients.subgraphs.fedper import FedPerClient
from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Batch, Result

NAMES = tuple(model().shapes)
FIRST, SECOND = tiny_client(3, 9), tiny_client(8, 14)
"""Of 3 and 5 training nodes."""


def client(*hosted: ClientGraph, family: type[SubgraphClient] = SubgraphClient, **settings: Any) -> SubgraphClient:
    return family_of(family, cohort_of(*hosted), settings, seed=7, local_epochs=2)


def one_model(names: tuple[str, ...] = NAMES, seed: int = 0) -> Stack:
    return {name: values[0] for name, values in parameters_of(1, names, seed).items()}


def trained(cohort: SubgraphClient, sent: Stack, server_round: int = 1, epochs: int = 2) -> Result:
    ids = cohort.cohort.client_ids
    return cohort.train(Batch.for_all(ids, sent, server_round=server_round, local_epochs=epochs))


@pytest.mark.parametrize(
    ("family", "names"), [(SubgraphClient, NAMES), (FedPUBClient, NAMES), (FedPerClient, NAMES[:4])]
)
def test_the_initial_model_is_what_is_shared_of_it(family: type[SubgraphClient], names: tuple[str, ...]) -> None:
    found = client(FIRST, SECOND, family=family).get_parameters({})
    initial = model().initial_of(7)
    assert len(found) == len(names)
    for name, values in zip(names, found, strict=True):
        np.testing.assert_array_equal(values, initial[name])


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient, FedPerClient])
def test_a_node_of_one_client_returns_what_the_client_uploads(family: type[SubgraphClient]) -> None:
    flower, plain = client(FIRST, family=family), client(FIRST, family=family)
    for server_round in (1, 2):
        sent = one_model(NAMES[:4] if family is FedPerClient else NAMES, server_round)
        arrays, examples, metrics = flower.fit(list(sent.values()), {"round": server_round})
        result = trained(plain, sent, server_round)
        assert examples == 3 and len(arrays) == len(sent)
        for name, values in zip(sent, arrays, strict=True):
            np.testing.assert_array_equal(values, result.arrays[name][0])
        assert metrics["train_loss"] == result.metrics["train_loss"][0]


def test_of_two_clients_the_mean_by_examples_is_returned() -> None:
    flower, plain, sent = client(FIRST, SECOND), client(FIRST, SECOND), one_model()
    arrays, examples, metrics = flower.fit(list(sent.values()), {})
    result = trained(plain, sent)
    assert examples == 3 + 5 and all(isinstance(value, float) for value in metrics.values())
    for name, values in zip(NAMES, arrays, strict=True):
        one, other = result.arrays[name].astype(float)
        assert np.abs(one - other).max() > 1e-4  # else any weights would do
        np.testing.assert_allclose(values, (3 * one + 5 * other) / 8, atol=1e-6)
        assert values.dtype == np.float32 and values.shape == sent[name].shape
    for name in ("validation", "test", "train_loss"):
        assert metrics[name] == pytest.approx(result.metrics[name].mean())


def test_by_examples_it_does_not_matter_which_node_hosts_whom() -> None:
    """Flower's FedAvg weights nodes by the examples that they return."""
    third, sent = tiny_client(9, 7), one_model()
    together = client(FIRST, SECOND, third).fit(list(sent.values()), {})
    parts = [client(*hosted).fit(list(sent.values()), {}) for hosted in ((FIRST, third), (SECOND,))]
    assert together[1] == sum(examples for _, examples, _ in parts)
    for position, values in enumerate(together[0]):
        mean = sum(arrays[position].astype(float) * examples for arrays, examples, _ in parts) / together[1]
        np.testing.assert_allclose(values, mean, atol=1e-5)


def test_round_and_epochs_are_those_of_the_configuration() -> None:
    """The proximal term acts from round 2 on; without an entry the run's two epochs are taken."""
    settings, sent = {"proximal": 5.0}, one_model()
    for config, server_round, epochs in (({"round": 2}, 2, 2), ({"local_epochs": 3}, 1, 3), ({}, 1, 2)):
        arrays, _, _ = client(FIRST, **settings).fit(list(sent.values()), config)
        expected = trained(client(FIRST, **settings), sent, server_round, epochs).arrays
        for name, values in zip(NAMES, arrays, strict=True):
            np.testing.assert_array_equal(values, expected[name][0])


@pytest.mark.parametrize("hosted", [(FIRST,), (FIRST, SECOND)], ids=["one", "two"])
def test_evaluation_is_of_what_was_sent_and_trains_nothing(hosted: tuple[ClientGraph, ...]) -> None:
    flower, plain, sent = client(*hosted), client(*hosted), one_model()
    before = flower.open_state().buffer.clone()
    loss, examples, metrics = flower.evaluate(list(sent.values()), {"round": 4})
    result = trained(plain, sent, epochs=1)
    assert examples == sum(graph.num_train for graph in hosted)
    assert loss == metrics["train_loss"] == pytest.approx(result.metrics["train_loss"].mean(), abs=1e-6)
    for name in ("validation", "test"):
        assert metrics[name] == pytest.approx(result.metrics[f"{name}_as_received"].mean())
    assert (flower.open_state().buffer == before).all()


def test_a_client_that_fails_is_named() -> None:
    sent = one_model()
    sent["conv1.weight"][:] = np.nan
    with pytest.raises(SubflError, match=r"^client 3 failed: FloatingPointError: the training loss of client 3 is not"):
        client(FIRST, SECOND).fit(list(sent.values()), {})


def test_parameters_of_another_model_are_refused_by_name() -> None:
    sent = one_model()
    sent["classifier.bias"] = np.zeros(4, np.float32)
    for call in (client(FIRST).fit, client(FIRST).evaluate):
        with pytest.raises(SubflError, match=r"the server sent classifier.bias as float32 \[4\], where float32 \[3\]"):
            call(list(sent.values()), {})
        with pytest.raises(SubflError, match=r"the server sent 5 arrays, where conv1.weight, conv1.bias, .* belong"):
            call(list(sent.values())[:5], {})


def test_a_server_that_averages_in_double_precision_is_understood() -> None:
    sent = one_model()
    doubled = [values.astype(np.float64) for values in sent.values()]
    found, expected = client(FIRST).fit(doubled, {})[0], client(FIRST).fit(list(sent.values()), {})[0]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].dtype == np.float32
