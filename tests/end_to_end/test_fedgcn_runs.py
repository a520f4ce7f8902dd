"""Whole runs of FedGCN: FedAvg without an exchange, as on the whole graph with one, and alike wherever clients are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import recorddict_to_proto
from run_outcomes import Outcome, command, run_inline

from subfl_flower.composition import composed_config
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.subgraphs.mending.neighbour_sums import degrees

SMALL = ("dataset=digits", "model.hidden=16", "federation.rounds=3", "federation.local_epochs=2")
DISJOINT, OVERLAPPING = ("partition=metis", "partition.clients=5"), ("partition=overlap_rate", "partition.rate=0.3")
METRICS = ("train_loss", "validation", "test", "validation_as_received", "test_as_received")
PHASES = ["boundary", "neighbours", "mend"]


def same(found: Outcome, expected: Outcome, tolerance: float = 1e-5) -> None:
    assert found.summary["status"] == expected.summary["status"] == "completed"
    for name in METRICS:
        np.testing.assert_allclose(found.values(name), expected.values(name), atol=tolerance, err_msg=name)


def differ(found: Outcome, expected: Outcome) -> None:
    assert np.abs(found.values("train_loss")[-1] - expected.values("train_loss")[-1]).max() > 1e-3


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Outcome]:
    """A run with a partition on one node; each is made once."""
    made: dict[tuple[str, ...], Outcome] = {}

    def run(partition: tuple[str, ...]) -> Outcome:
        if partition not in made:
            folder = tmp_path_factory.mktemp("fedgcn")
            made[partition] = run_inline(folder / "run", *SMALL, *partition, "method=fedgcn", "runtime.chunk=1")
        return made[partition]

    return run


@pytest.mark.parametrize("partition", [DISJOINT, OVERLAPPING], ids=["disjoint", "overlapping"])
def test_without_hops_it_is_fedavg(
    partition: tuple[str, ...], mended: Callable[..., Outcome], inline_run: Callable[..., Outcome]
) -> None:
    without = inline_run(*SMALL, *partition, "method=fedgcn", "method.hops=0")
    fedavg = inline_run(*SMALL, *partition, "method=fedavg")
    same(without, fedavg, 0.0)
    assert without.summary["exchanges"] == [] and without.summary["bytes_up"] == fedavg.summary["bytes_up"]
    differ(mended(partition), fedavg)


@pytest.mark.parametrize("partition", [DISJOINT, OVERLAPPING], ids=["disjoint", "overlapping"])
def test_it_is_fedavg_on_the_whole_graph(
    partition: tuple[str, ...], mended: Callable[..., Outcome], inline_run: Callable[..., Outcome]
) -> None:
    """Every node is held by somebody, and both have the same nodes in the same order: even dropout is the same."""
    whole = inline_run(*SMALL, *partition, "method=fedavg_whole_graph")
    same(mended(partition), whole, 1e-4)
    assert whole.summary["exchanges"] == []


@pytest.mark.parametrize("partition", [DISJOINT, OVERLAPPING], ids=["disjoint", "overlapping"])
def test_placement_changes_nothing_and_neither_do_masks(
    partition: tuple[str, ...], mended: Callable[..., Outcome], inline_run: Callable[..., Outcome]
) -> None:
    expected = mended(partition)
    elsewhere = inline_run(*SMALL, *partition, "method=fedgcn", "runtime.nodes=3", "runtime.chunk=all")
    same(elsewhere, expected)
    masked = inline_run(*SMALL, *partition, "method=fedgcn", "method.masking=true", "runtime.nodes=2")
    same(masked, expected, 1e-4)
    phases, hidden = expected.summary["exchanges"], masked.summary["exchanges"]
    for phase, other in zip(phases, elsewhere.summary["exchanges"], strict=True):
        assert [phase[key] for key in ("action", "bytes_up", "bytes_down")] == [
            other[key] for key in ("action", "bytes_up", "bytes_down")
        ]
    assert [phase["action"] for phase in phases] == [phase["action"] for phase in hidden] == PHASES
    assert phases[0]["bytes_up"] == hidden[0]["bytes_up"] > 0 and phases[2]["bytes_up"] == 0
    assert 0 < phases[1]["bytes_up"] < hidden[1]["bytes_up"] and phases[2]["bytes_down"] > 0


@pytest.mark.slow
def test_under_ray_it_gives_the_same(mended: Callable[..., Outcome], tmp_path: Path) -> None:
    """Whichever process gets the next message finds what another one was told."""
    outcome = command(
        *(*SMALL, *OVERLAPPING, "method=fedgcn", "runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2"),
        directory=tmp_path / "run",
        cwd=tmp_path,
        timeout=400,
    )
    assert outcome.code == 0, outcome.stderr
    same(outcome, mended(OVERLAPPING))


@pytest.mark.parametrize("method", ["fedgcn", "fedgcn method.hops=1"])
def test_it_predicts_links_too(method: str, inline_run: Callable[..., Outcome]) -> None:
    task = ("task=link_prediction", "task.dimensions=8")
    found = inline_run(*SMALL, *DISJOINT, *task, *f"method={method}".split())
    assert found.summary["status"] == "completed" and np.isfinite(found.values("test")).all()
    differ(found, inline_run(*SMALL, *DISJOINT, *task, "method=fedavg"))


def test_no_message_names_a_node_or_shows_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With masks not even those of a node that is a client's only neighbour elsewhere."""
    payloads: list[bytes] = []
    handle = InlineGrid._handle

    def recording(self: InlineGrid, message: Message) -> Message:
        reply = handle(self, message)
        payloads.extend(recorddict_to_proto(each.content).SerializeToString() for each in (message, reply))
        return reply

    monkeypatch.setattr(InlineGrid, "_handle", recording)
    overrides = (*SMALL, *DISJOINT, "method=fedgcn", "method.masking=true", "record.client_models=false")
    run_inline(tmp_path / "run", *overrides, "runtime.nodes=5")
    config, _ = composed_config(list(overrides))
    partition = prepare(config.dataset, config.partition, config.data.root, config.data.cache)
    assert len(payloads) > 40
    for client in range(5):
        graph = partition.client(client)
        boundary = np.unique(graph.cross_edges[0])
        elsewhere = np.unique(graph.cross_edges[1])
        named = (graph.node_ids[boundary], elsewhere)
        secrets = [ids.astype(kind)[:4].tobytes() for ids in named for kind in ("<i8", "<i4")]
        scaled = graph.features[boundary] / np.sqrt(degrees(graph)[boundary]).astype(np.float32)[:, None]
        secrets += [row.tobytes() for rows in (graph.features[boundary], scaled) for row in rows[:, :40]]
        secrets.append(graph.cross_edges[1][:8].tobytes())
        assert len(boundary) > 10
        for secret in secrets:
            assert not any(secret in payload for payload in payloads)
