"""`runtime.threads`: the same bits for every number, and failures in the order of clients."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_outcomes import SMALL_DIGITS, finished, run_inline, start, wait_for_rounds

from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.node.iteration import SideBySide
from subfl_flower.node.node import Node

GRAPHS = ("dataset=digits", "model.hidden=16", "federation.rounds=3", "federation.local_epochs=2")
USERS = (
    *("dataset.num_users=40", "dataset.num_items=30", "dataset.ratings_per_user=10", "model.dim=4"),
    *("federation.rounds=3", "runtime.chunk=6"),
)
METHODS = {
    "fedavg": ("method=fedavg", *GRAPHS),
    "fedavg, sampled": ("method=fedavg", *GRAPHS, "federation.fraction=0.6"),
    "fedpub": ("method=fedpub", *SMALL_DIGITS, *GRAPHS[2:]),
    "subpfed": ("method=subpfed", *GRAPHS),
    "subpfed, gat": ("method=subpfed", *GRAPHS, "model=gat", "model.attention_dropout=0.3"),
    "fedgnn": ("method=fedgnn", *USERS, "method.pseudo_items=5", "privacy=laplace_linf", "method.max_neighbours=3"),
    "perfedrec": ("method=perfedrec", *USERS[:-1], "runtime.chunk=5"),
}

GCN_OF_PYG = ("model._target_=torch_geometric.nn.GCN", "+model.hidden_channels=8", "+model.num_layers=2")


def numbers(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds")
    return records


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Workers, and batches of every call."""
    seen: list[tuple[int, int]] = []
    call = SideBySide.__call__

    def watched(self: SideBySide, batches: Any, work: Any) -> Any:
        seen.append((self.workers, len(batches)))
        return call(self, batches, work)

    monkeypatch.setattr(SideBySide, "__call__", watched)
    return seen


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_threads_gives_the_same_bits(tmp_path: Path, name: str, shares: list[tuple[int, int]]) -> None:
    outcomes = []
    for threads in (1, 2, 4):
        shares.clear()
        outcomes.append(run_inline(tmp_path / str(threads), *METHODS[name], f"runtime.threads={threads}"))
        assert {workers for workers, _ in shares} == {threads}
        assert max(batches for _, batches in shares) > 1
    one, *others = outcomes
    for other in others:
        assert numbers(other.directory) == numbers(one.directory)
        assert other.models().keys() == one.models().keys()
        for client, tensors in one.models().items():
            for tensor, values in tensors.items():
                np.testing.assert_array_equal(other.models()[client][tensor], values)


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=oracle",),
        ("method=fedavg", "model=module", *GCN_OF_PYG),
    ],
)
def test_what_cannot_be_worked_side_by_side_is_computed_with_pytorchs_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    used: list[int] = []
    train = SubgraphClient.train_chunk

    def watched(self: SubgraphClient, batch: Any, state: Any) -> Any:
        used.append(torch.get_num_threads())
        return train(self, batch, state)

    monkeypatch.setattr(SubgraphClient, "train_chunk", watched)
    run_inline(tmp_path / "run", "dataset=digits", "federation.rounds=1", *overrides, "runtime.threads=3")
    assert set(used) == {3} and torch.get_num_threads() == 1


@pytest.mark.parametrize(("family", "name"), [(SubgraphClient, "fedavg"), (RecommenderClient, "fedgnn")])
def test_failing_clients_are_reported_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: type, name: str
) -> None:
    train = family.train_chunk  # type: ignore[attr-defined]

    def failing(self: Any, batch: Any, state: Any) -> Any:
        if bad := [client for client in batch.clients if client % 3 == 1]:
            time.sleep(0.02 / (1 + bad[0]))  # the first is the last to fail
            raise OSError(f"the disk of {bad[0]} is full")
        return train(self, batch, state)

    monkeypatch.setattr(family, "train_chunk", failing)
    overrides = (*METHODS[name], "runtime.on_client_failure=continue", "privacy=none")
    one, two = (run_inline(tmp_path / str(threads), *overrides, f"runtime.threads={threads}") for threads in (1, 3))
    assert numbers(two.directory) == numbers(one.directory)
    failures = [record["failures"] for record in two.rounds]
    assert all(failures) and "the disk of 1 is full" in json.dumps(failures)
    assert json.dumps(failures) == json.dumps([record["failures"] for record in one.rounds])


def test_no_thread_at_all_is_refused() -> None:
    with pytest.raises(SubflError, match=r"^runtime\.threads[^\n]*at least 1[^\n]*$"):
        composed_config(["dataset=digits", "runtime.threads=0"])


def test_one_core_works_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default where PyTorch has one thread, as in all tests."""
    seen: list[SideBySide] = []
    client = Node.client

    def watched(self: Node, *arguments: Any) -> Any:
        found = client(self, *arguments)
        seen.append(found.iterate)  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(Node, "client", watched)
    run_inline(tmp_path / "run", *METHODS["fedavg"])
    assert set(seen) == {SideBySide(1, 1)}


def test_a_second_ctrl_c_ends_all_threads_at_once(tmp_path: Path) -> None:
    minutes = ("federation.local_epochs=100000", "runtime.chunk=2", "runtime.threads=2")
    process = start(("method=fedavg", *GRAPHS, *minutes), tmp_path / "run", tmp_path)
    wait_for_rounds(process, tmp_path / "run", 0)
    time.sleep(1.0)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    outcome = finished(process, tmp_path / "run")
    assert outcome.code == 130 and "Traceback" not in outcome.stderr
    assert outcome.summary["status"] == "interrupted" and outcome.summary["rounds"] == 0
