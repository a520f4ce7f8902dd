"""Clients and nodes that send what they must not: the run goes on without them, says so, and stays finite."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Message, RecordDict
from run_outcomes import Outcome, run_inline
from torch import Tensor

import subfl_flower.client_app
from subfl_flower.clients.subgraphs.description import Description
from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.node.state import CohortState
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.stacked_gnn import Parameters
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.payload import ARRAYS, LAYOUT, pack, unpack
from subfl_flower.wire.ragged import Ragged, pack_ragged
from subfl_flower.wire.replies import METRICS, OUTCOME

EVERYONE = list(range(10))
SAME_NODE = [1, 3, 5, 7, 9]
"""Client 3 and those on its node."""


class Changed(Description):
    """Uploads in place of those that would be sent.

    Args:
        change: has its way with the uploads of a batch.
    """

    def __init__(self, change: Callable[[dict[str, Tensor], Batch], None]) -> None:
        self._change = change

    def of(self, effective: Parameters, chunk: GraphChunk, batch: Batch) -> dict[str, Tensor]:
        uploads = {name: value.clone() for name, value in effective.items()}  # not the model that the client keeps
        self._change(uploads, batch)
        return uploads


class Sending(SubgraphClient):
    """Client 3 changes what it sends in round 2."""

    def describes(self) -> tuple[Description, ...]:
        return (Changed(self.change),)

    def change(self, uploads: dict[str, Tensor], batch: Batch) -> None:
        if 3 in batch.clients and batch.server_round == 2:
            self.spoil(uploads, batch.clients.index(3))

    def spoil(self, uploads: dict[str, Tensor], row: int) -> None:
        raise OSError("the disk is full")


class NotANumber(Sending):
    def spoil(self, uploads: dict[str, Tensor], row: int) -> None:
        uploads["conv1.weight"][row, 5, 2] = math.nan


class Endless(Sending):
    def spoil(self, uploads: dict[str, Tensor], row: int) -> None:
        uploads["classifier.bias"][row, 0] = -math.inf


class Enormous(Sending):
    def spoil(self, uploads: dict[str, Tensor], row: int) -> None:
        uploads["conv2.weight"][row] *= 1e30


class AllOfANode(SubgraphClient):
    """The clients on client 3's node change what they send in round 2."""

    def describes(self) -> tuple[Description, ...]:
        return (Changed(self.change),)

    def change(self, uploads: dict[str, Tensor], batch: Batch) -> None:
        if 3 in self.cohort.client_ids and batch.server_round == 2:
            self.spoil(uploads)

    def spoil(self, uploads: dict[str, Tensor]) -> None:
        uploads["conv1.bias"] = uploads["conv1.bias"].repeat(1, 2)


class TenTimes(AllOfANode):
    def spoil(self, uploads: dict[str, Tensor]) -> None:
        uploads["conv1.weight"] = uploads["conv1.weight"].repeat(1, 10, 1)


class Doubles(AllOfANode):
    def spoil(self, uploads: dict[str, Tensor]) -> None:
        uploads["conv1.bias"] = uploads["conv1.bias"].double()


class Extreme(FedPUBClient):
    """Client 3 wants features 255 times, and sends the largest numbers that are accepted, and tiny ones."""

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        result = super().train_chunk(batch, state)
        uploads = {name: values.copy() for name, values in result.arrays.items()}  # not the model that it keeps
        if 3 in result.clients:
            row = result.clients.index(3)
            uploads["wanted_features"][row] = 255
            if "functional_embedding" in uploads:
                uploads["functional_embedding"][row] = 1e12 if batch.server_round < 3 else 1e-40
            if batch.server_round == 4:  # the last one: who received this could not train
                uploads["conv1.weight"][row] = 1e12
        return replace(result, arrays=uploads)


def run(folder: Path, *overrides: str) -> Outcome:
    return run_inline(
        folder / "run",
        *("dataset=digits", "model.hidden=64", "federation.rounds=4", "federation.local_epochs=1"),
        *("runtime.nodes=2", "runtime.on_client_failure=continue", *(overrides or ("method=fedavg",))),
    )


def check(outcome: Outcome, failed: Iterable[int], reason: str) -> None:
    """The run is complete and finite; in round 2 these failed for this reason (its beginning), and nobody else ever."""
    assert outcome.summary["status"] == "completed" and len(outcome.rounds) == 4
    for record in outcome.rounds:
        expected = {str(client) for client in failed} if record["round"] == 2 else set()
        assert set(record["failures"]) == expected
        assert all(found.startswith(reason) for found in record["failures"].values())
        assert record["clients"]["ids"] == [client for client in EVERYONE if str(client) not in expected]
    check_finite(outcome)


def check_finite(outcome: Outcome) -> None:
    """Strict JSON has no infinities; what is not a number stands there as null, and there is none of it either."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in (outcome.directory / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line, parse_constant=refuse)
        assert None not in record.values()
        assert not any(None in values for values in record["clients"].values())
    for model in outcome.models().values():
        assert all(np.isfinite(values).all() for values in model.values())


@pytest.mark.parametrize("method", ["fedavg", "gcfl"])
@pytest.mark.parametrize(
    ("family", "failed", "reason"),
    [
        (Sending, [3], "OSError: the disk is full"),
        (NotANumber, [3], "its update of conv1.weight is not finite"),
        (Endless, [3], "its update of classifier.bias is not finite"),
        (Enormous, [3], "its update of conv2.weight is larger than 1e+12"),
        (
            AllOfANode,
            SAME_NODE,
            "its node's reply cannot be read: its conv1.bias is float32 [128] for a client, where float32 [64] belongs",
        ),
        (TenTimes, SAME_NODE, "its node's reply cannot be read: it is 3."),
        (Doubles, SAME_NODE, "its node's reply cannot be read: its conv1.bias is float64 [64]"),
    ],
)
def test_a_client_family_that_sends_what_it_must_not(
    tmp_path: Path, family: type, failed: list[int], reason: str, method: str
) -> None:
    client = f"method.client={__name__}.{family.__name__}"
    check(run(tmp_path, f"method={method}", client), failed, reason)


@pytest.mark.parametrize("similarity", ["functional", "parameter", "gradient"])
def test_the_largest_and_smallest_numbers_that_are_accepted_overflow_nothing(tmp_path: Path, similarity: str) -> None:
    outcome = run(
        tmp_path,
        *("method=fedpub", f"method.client={__name__}.Extreme", f"method.similarity={similarity}"),
        *("method.random_blocks=2", "method.random_block_nodes=20", "record.mixing_every=1"),
    )
    assert [record["failures"] for record in outcome.rounds] == [{}] * 4
    for matrix in outcome.mixing.values():
        assert np.isfinite(matrix).all() and (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
    check_finite(outcome)


# Nodes ----------------------------------------------------------------------------------------------------------------


def outcome_of(content: RecordDict) -> Any:
    return content.config_records[OUTCOME]


def for_another(content: RecordDict) -> None:
    outcome_of(content)["clients"] = [1, 3, 4, 7, 9]


def of_an_earlier_round(content: RecordDict) -> None:
    outcome_of(content)["round"] = 1


def without_metrics(content: RecordDict) -> None:
    del content[METRICS]


def with_an_endless_figure(content: RecordDict) -> None:
    content.metric_records[METRICS]["test.macro_f1"] = [0.5, 0.5, math.inf, 0.5, 0.5]


def with_a_metric_of_its_own(content: RecordDict) -> None:
    content.metric_records[METRICS]["test"] = [0.5, 0.5, math.inf, 0.5, 0.5]


def with_an_invented_metric(content: RecordDict) -> None:
    content.metric_records[METRICS]["fame"] = [1.0] * 5


def with_more_than_all_right(content: RecordDict) -> None:
    content.metric_records[METRICS]["test"] = [0.5, 0.5, 1.5, 0.5, 0.5]


def with_an_unknown_number_of_examples(content: RecordDict) -> None:
    content.metric_records[METRICS]["num_examples"] = [5.0, 5.0, math.nan, 5.0, 5.0]


def with_an_undeclared_array(content: RecordDict) -> None:
    pack({**unpack(content)[0], "labels": np.ones((5, 3), np.float32)}).into(content)


def with_an_undeclared_array_that_its_layout_hides(content: RecordDict) -> None:
    content.array_records[ARRAYS]["labels"] = Array(np.ones((5, 3), np.float32))


def with_undeclared_rows(content: RecordDict) -> None:
    pack_ragged({"labels": Ragged(np.ones((5, 3), np.float32), np.ones(5, np.int64))}, content)


def with_a_bomb(content: RecordDict) -> None:
    content.config_records[LAYOUT]["conv1.weight.shape"] = [5, 10**7, 10**7]


def with_objects(content: RecordDict) -> None:
    record = content.array_records[ARRAYS]
    record["conv1.bias"] = Array("object", (1,), "numpy.ndarray", record["conv1.bias"].data.replace(b"<f4", b"|O "))


def with_nothing(content: RecordDict) -> None:
    for name in list(content):
        del content[name]


@pytest.mark.parametrize(
    ("change", "failed", "reason"),
    [
        (
            for_another,
            SAME_NODE,
            "its node's reply cannot be read: it answers for client 4, which it was not asked for",
        ),
        (of_an_earlier_round, SAME_NODE, "its node's reply cannot be read: its update is of round 1, not 2"),
        (without_metrics, SAME_NODE, "its node's reply cannot be read: it has no record 'metrics'"),
        (with_a_metric_of_its_own, [5], "its test is inf"),
        (with_an_endless_figure, [5], "its test.macro_f1 is inf"),
        (
            with_an_invented_metric,
            SAME_NODE,
            "its node's reply cannot be read: it holds the metric 'fame', which this method does not have",
        ),
        (with_more_than_all_right, [5], "its test is 1.5, and must be from 0 to 1"),
        (with_an_unknown_number_of_examples, [5], "its num_examples is nan, and must be from 0 to 1e+12"),
        (with_an_undeclared_array, SAME_NODE, "its node's reply cannot be read: it holds labels, where only conv1."),
        (
            with_an_undeclared_array_that_its_layout_hides,
            SAME_NODE,
            "its node's reply cannot be read: it holds labels, which its layout does not speak of",
        ),
        (
            with_undeclared_rows,
            SAME_NODE,
            "its node's reply cannot be read: it holds the rows labels, where none belong",
        ),
        (with_a_bomb, SAME_NODE, "its node's reply cannot be read: its conv1.weight is float32 [10000000, 10000000]"),
        (with_objects, SAME_NODE, "its node's reply cannot be read: an array is not plain numbers"),
        (with_nothing, SAME_NODE, "its node's reply cannot be read: it has no record 'outcome'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_node_that_sends_what_it_must_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[RecordDict], None],
    failed: list[int],
    reason: str,
) -> None:
    honest = subfl_flower.client_app.app

    def hostile(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        if context.node_config["partition-id"] == 1 and message.content.config_records["run"].get("round") == 2:
            change(reply.content)
        return reply

    monkeypatch.setattr(subfl_flower.client_app, "app", hostile)
    check(run(tmp_path), failed, reason)
