"""Clients and nodes that send what they must not: the run goes on without them, says so, and stays finite."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients.masked import MaskedClient
from flwr.app import Array, Context, Message, RecordDict
from run_outcomes import Outcome, run_inline
from torch import Tensor

import subfl_flower.client_app
from clients.subgraph import SubgraphClient
from subfl_flower.models.chunk import GraphChunk
from subfl_flower.models.stacked_gnn import Parameters
from subfl_flower.runtime.messages import ARRAYS, LAYOUT
from subfl_flower.runtime.replies import METRICS, OUTCOME

EVERYONE = list(range(10))
SAME_NODE = [1, 3, 5, 7, 9]
"""Client 3 and those on its node."""


class Sending(SubgraphClient):
    """Client 3 changes what it sends in round 2."""

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        uploads = super().uploads(shared, personal, effective, chunk)
        uploads = {name: value.clone() for name, value in uploads.items()}  # not the model that the client keeps
        if 3 in chunk.client_ids and self.announced["round"] == 2:
            self.spoil(uploads, chunk.client_ids.index(3))
        return uploads

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

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        uploads = super().uploads(shared, personal, effective, chunk)
        uploads = {name: value.clone() for name, value in uploads.items()}  # not the model that the client keeps
        if 3 in self.cohort.client_ids and self.announced["round"] == 2:
            self.spoil(uploads)
        return uploads

    def spoil(self, uploads: dict[str, Tensor]) -> None:
        uploads["conv1.bias"] = uploads["conv1.bias"].repeat(1, 2)


class TenTimes(AllOfANode):
    def spoil(self, uploads: dict[str, Tensor]) -> None:
        uploads["conv1.weight"] = uploads["conv1.weight"].repeat(1, 10, 1)


class Doubles(AllOfANode):
    def spoil(self, uploads: dict[str, Tensor]) -> None:
        uploads["conv1.bias"] = uploads["conv1.bias"].double()


class Extreme(MaskedClient):
    """Client 3 wants features 255 times, and sends the largest numbers that are accepted, and tiny ones."""

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        uploads = super().uploads(shared, personal, effective, chunk)
        uploads = {name: value.clone() for name, value in uploads.items()}  # not the model that the client keeps
        if 3 in chunk.client_ids:
            row = chunk.client_ids.index(3)
            uploads["wanted_features"][row] = 255
            if "functional_embedding" in uploads:
                uploads["functional_embedding"][row] = 1e12 if self.announced["round"] < 3 else 1e-40
            if self.announced["round"] == 4:  # the last one: who received this could not train
                uploads["conv1.weight"][row] = 1e12
        return uploads


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
