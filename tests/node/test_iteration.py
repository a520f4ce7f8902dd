"""The orders in which a node's clients are worked: all give the same result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_clients import cohort_of, family_of, parameters_of, tiny_client

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.node.iteration import Iteration, in_chunks, one_by_one
from subfl_flower.wire.batch import Batch, Result

CHUNKS = [(4, 2, 7), (1,), (9, 5)]


def batches(*chunks: tuple[int, ...]) -> list[Batch]:
    return [Batch.of_stack(ids, {"w": np.array(ids, np.float32)[:, None]}, server_round=3) for ids in chunks]


class Doubling:
    """Sends twice what was received, and fails on a chunk with one of some clients.

    Attributes:
        worked: the chunks that were tried, in order.
    """

    def __init__(self, *failing: int) -> None:
        self.failing, self.worked = failing, list[tuple[int, ...]]()

    def __call__(self, batch: Batch) -> Result:
        self.worked.append(batch.clients)
        assert batch.server_round == 3
        if any(client in self.failing for client in batch.clients):
            raise OSError("the disk is full")
        return Result(batch.clients, {"w": 2 * batch.stack["w"]}, metrics={"id": np.array(batch.clients, float)})


@pytest.mark.parametrize("iterate", [in_chunks, one_by_one])
@pytest.mark.parametrize("failing", [(), (2,), (1,), (4, 9), (4, 2, 7)])
def test_a_failing_client_is_its_own_failure_and_the_others_keep_their_order(
    iterate: Iteration, failing: tuple[int, ...]
) -> None:
    result = iterate(batches(*CHUNKS), Doubling(*failing))
    succeeded = tuple(client for chunk in CHUNKS for client in chunk if client not in failing)
    assert result.clients == succeeded
    assert result.arrays["w"][:, 0].tolist() == [2 * client for client in succeeded]
    assert result.metrics["id"].tolist() == list(succeeded)
    assert result.failures == dict.fromkeys(failing, "OSError: the disk is full")


@pytest.mark.parametrize("iterate", [in_chunks, one_by_one])
def test_where_all_fail_there_are_reasons_alone(iterate: Iteration) -> None:
    result = iterate(batches((4, 2), (1,)), Doubling(1, 2, 4))
    assert (result.clients, result.arrays, result.metrics) == ((), {}, {})
    assert set(result.failures) == {1, 2, 4}
    assert iterate([], Doubling()).clients == ()


def test_a_chunk_is_worked_at_once_and_again_client_by_client_where_it_fails() -> None:
    work = Doubling(2)
    in_chunks(batches(*CHUNKS), work)
    assert work.worked == [(4, 2, 7), (4,), (2,), (7,), (1,), (9, 5)]
    work = Doubling(2)
    one_by_one(batches(*CHUNKS), work)
    assert work.worked == [(4,), (2,), (7,), (1,), (9,), (5,)]


# Of subgraph clients --------------------------------------------------------------------------------------------------


class Failing(SubgraphClient):
    """Client 1 fails in round 2."""

    def train_chunk(self, batch: Batch, state: Any) -> Result:
        if 1 in batch.clients and batch.server_round == 2:
            raise OSError("the disk is full")
        return super().train_chunk(batch, state)


def client(family: type[SubgraphClient], iterate: Iteration, chunk: int | str, *hosted: ClientGraph) -> SubgraphClient:
    made = family_of(family, cohort_of(*hosted, chunk=chunk), seed=7)
    made.iterate = iterate
    return made


def round_of(made: SubgraphClient, server_round: int) -> Result:
    sent = parameters_of(3, seed=server_round)
    return made.train(Batch.of_stack((0, 1, 2), sent, server_round=server_round, local_epochs=2))


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient, Failing])
@pytest.mark.parametrize("chunk", [1, 2, "all"])
@pytest.mark.parametrize("sizes", [(8, 8, 8), (9, 5, 12)], ids=["equal", "different"])
def test_client_by_client_and_chunk_by_chunk_give_one_result(
    sizes: tuple[int, int, int], chunk: int | str, family: type[SubgraphClient]
) -> None:
    """To the last bit where no graph is padded: with padding, matrix products are larger and round otherwise."""
    tolerance = 0 if chunk == 1 or len(set(sizes)) == 1 else 1e-6
    hosted = [tiny_client(c, size) for c, size in enumerate(sizes)]
    one, other = (client(family, iterate, chunk, *hosted) for iterate in (one_by_one, in_chunks))
    for server_round in (1, 2, 3):
        expected, found = round_of(one, server_round), round_of(other, server_round)
        assert found.clients == expected.clients
        fails = family is Failing and server_round == 2
        assert found.failures == expected.failures == ({1: "OSError: the disk is full"} if fails else {})
        for of_found, of_expected in ((found.arrays, expected.arrays), (found.metrics, expected.metrics)):
            assert of_found.keys() == of_expected.keys()
            for name, values in of_found.items():
                np.testing.assert_allclose(values, of_expected[name], rtol=0, atol=tolerance, err_msg=name)
    state, expected_state = (each.open_state().buffer.numpy() for each in (other, one))
    np.testing.assert_allclose(state, expected_state, rtol=0, atol=tolerance)
