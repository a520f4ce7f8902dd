"""Clients send exactly the arrays of their contract, for every method and the knobs that change it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_outcomes import SMALL_GENERATOR, Outcome, method_names, run_inline

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.errors import RunFailure
from subfl_flower.node.state import CohortState
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.contract import RunContext, arrays_of

METHODS = method_names("graph")
SIMILARITIES = ("functional", "parameter", "gradient", "label", "none")
VARIANTS = [
    *((method, *(SMALL_GENERATOR if method == "fedsage_plus" else ())) for method in METHODS),
    *((method, f"method.similarity={kind}") for method in ("fedpub", "subpfed") for kind in SIMILARITIES),
    ("fedpub", "method.masks=false"),
    ("fedpub", "+method.personal_layers=[conv1]"),
    ("subpfed", "+method.personal_layers=[conv1,conv2]"),
    ("gcfl", "task=link_prediction"),
]


@pytest.mark.parametrize("overrides", VARIANTS, ids=" ".join)
def test_the_arrays_of_every_method_are_those_that_its_contract_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    taken: list[tuple[CohortStrategy, Updates]] = []
    take = CohortStrategy.take

    def noted(self: CohortStrategy, updates: Updates) -> None:
        taken.append((self, updates))
        take(self, updates)

    monkeypatch.setattr(CohortStrategy, "take", noted)
    method, *rest = overrides
    partition = ("partition=overlap_rate", "partition.rate=0.2") if method == "subpfed" else ()
    fast = ("method.random_blocks=2", "method.random_block_nodes=20") if method.startswith("fedpub") else ()
    outcome = run_inline(
        tmp_path / "run",
        *("dataset=digits", f"method={method}", "model.hidden=8", "federation.rounds=1", "runtime.nodes=2"),
        *partition,
        *fast,
        *rest,
    )
    ((strategy, updates),) = taken
    assert outcome.rounds[0]["failures"] == {} and len(outcome.rounds[0]["clients"]["ids"]) == len(strategy.roster)
    expected = arrays_of(strategy.contract.uploads)
    assert list(updates.arrays) == list(expected)
    for name, values in updates.arrays.items():
        assert (values.shape[1:], str(values.dtype)) == (expected[name].shape, expected[name].dtype)


class Telling(SubgraphClient):
    """Sends an array more than it declares."""

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        result = super().train_chunk(batch, state)
        result.arrays["labels"] = np.zeros((len(result.clients), 3), np.float32)
        return result


class Boasting(SubgraphClient):
    """Sends a figure more than it declares."""

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        result = super().train_chunk(batch, state)
        result.metrics["fame"] = np.ones(len(result.clients))
        return result


class Famous(Boasting):
    """Declares it, and may send it."""

    @classmethod
    def metrics(cls, run: RunContext) -> dict[str, Metric]:
        return {**super().metrics(run), "fame": replace(SHARE, by_client=True)}


def with_clients(folder: Path, path: str) -> Outcome:
    method = ("method=fedavg", f"method.client={path}", "model.hidden=8", "federation.rounds=1")
    return run_inline(folder / "run", "dataset=digits", *method)


@pytest.mark.parametrize(
    ("family", "complaint"),
    [
        (Telling, r"it holds labels, where only conv1.weight, .*, classifier.bias belongs"),
        (Boasting, r"it holds the metric 'fame', which this method does not have"),
    ],
)
def test_a_client_family_that_sends_more_than_it_declares_is_told_so(
    tmp_path: Path, family: type, complaint: str
) -> None:
    sentence = rf"^client \d failed in round 1: its node's reply cannot be read: {complaint}$"
    with pytest.raises(RunFailure, match=sentence):
        with_clients(tmp_path, f"{__name__}.{family.__name__}")


def test_a_figure_that_is_declared_is_recorded_as_its_declaration_says(tmp_path: Path) -> None:
    (record,) = with_clients(tmp_path, f"{__name__}.Famous").rounds
    assert record["clients"]["fame"] == [1.0] * 10 and "fame" not in record


def test_a_strategy_takes_the_contract_of_the_clients_that_the_configuration_names(tmp_path: Path) -> None:
    """FedAvg averages the masked models of FED-PUB's clients, which send more than its own."""
    (record,) = with_clients(tmp_path, "subfl_flower.clients.subgraphs.fedpub.FedPUBClient").rounds
    assert record["failures"] == {} and len(record["clients"]["sparsity"]) == 10
