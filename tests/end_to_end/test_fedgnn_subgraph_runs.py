"""Whole runs of FedGNN on subgraphs: what travels, where it changes nothing that clients run elsewhere, resumption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import recorddict_to_proto
from message_kinds import domain_of
from run_outcomes import Outcome, command, run_inline
from scipy.spatial import cKDTree
from test_resume import assert_same, break_off, resumed

from subfl_flower.clients.subgraphs.fedgnn_subgraph import SimilarNodesClient
from subfl_flower.composition import composed_config
from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.models.settings import ModelSettings
from subfl_flower.models.sparse import normalised_adjacency
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question

SMALL = ("dataset=digits", "partition=overlap_rate", "partition.rate=0.3", "model.hidden=16")
METHOD = (
    *(*SMALL, "method=fedgnn_subgraph", "method.max_neighbours=5"),
    *("federation.rounds=4", "federation.local_epochs=2"),
)
AGAIN = ("method.exchange_every=2", "method.exchange_start=1")
METRICS = ("train_loss", "validation", "test", "validation_as_received", "test_as_received")


def assert_same_numbers(found: Outcome, expected: Outcome, tolerance: float = 1e-5) -> None:
    assert found.summary["status"] == expected.summary["status"] == "completed"
    for name in METRICS:
        np.testing.assert_allclose(found.values(name), expected.values(name), atol=tolerance, err_msg=name)
    assert found.summary["similar_nodes"] == expected.summary["similar_nodes"]
    traffic = [
        [{key: phase[key] for key in phase if key != "seconds"} for phase in outcome.summary["exchanges"]]
        for outcome in (found, expected)
    ]
    assert traffic[0] == traffic[1]


@dataclass(frozen=True)
class Recorded:
    """A run, its clients' graphs, and what went from the server to nodes and back."""

    outcome: Outcome
    clients: list[ClientGraph]
    asked: list[Message] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)

    def arrays(self, messages: list[Message], action: str, nth: int = 0) -> dict[int, Stack]:
        """Arrays in the messages of the nth exchange of an action, by client and name; three nodes, so three each."""
        found: dict[int, Stack] = {}
        of_action = [
            message
            for asked, message in zip(self.asked, messages, strict=True)
            if domain_of(asked) == f"query.{action}"
        ]
        for message in of_action[3 * nth : 3 * nth + 3]:
            for record in message.content.array_records.values():
                for name, array in record.items():
                    client, array_name = name.split("/")
                    found.setdefault(int(client), {})[array_name] = read_array(array)
        return found

    def shown(self, nth: int = 0) -> list[np.ndarray]:
        answers = self.arrays(self.replies, "representations", nth)
        return [answers[client]["representations"] for client in range(10)]


def record_run(folder: Path, *overrides: str) -> Recorded:
    config, _ = composed_config(list(overrides))
    partition = prepare(config.dataset, config.partition, config.data.root, config.data.cache)
    asked: list[Message] = []
    replies: list[Message] = []
    handle = InlineGrid._handle

    def recording(self: InlineGrid, message: Message) -> Message:
        asked.append(message)
        replies.append(handle(self, message))
        return replies[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InlineGrid, "_handle", recording)
        outcome = run_inline(folder / "run", *overrides)
    return Recorded(outcome, [partition.client(client) for client in range(10)], asked, replies)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record_run(tmp_path_factory.mktemp("recorded"), *METHOD, *AGAIN, "runtime.nodes=3")


def representations(graph: ClientGraph) -> np.ndarray:
    """The first convolution under the initial model, by an independent formula."""
    initial = StackedGCN(ModelSettings(name="gcn", hidden=16), 64, 10).initial_of(0)
    operator = normalised_adjacency(graph.edge_index, graph.num_nodes).astype(float)
    features = graph.features if isinstance(graph.features, np.ndarray) else graph.features.toarray()
    shown: np.ndarray = operator @ features @ initial["conv1.weight"] + initial["conv1.bias"]
    return shown


def nodes_of(recorded: Recorded) -> list[np.ndarray]:
    """Nodes of the rows that were shown first, found by their representations."""
    found = []
    for graph, shown in zip(recorded.clients, recorded.shown(), strict=True):
        own = representations(graph)
        tree = cKDTree(own)
        distances, nearest = tree.query(shown)
        assert distances.max() < 1e-4
        found.append(nearest)
    return found


def test_clients_are_told_the_nearest_of_what_others_showed(recorded: Recorded) -> None:
    """Against all cosines at once, in double precision; what is within rounding of the last place may be either."""
    shown = recorded.shown()
    told = recorded.arrays(recorded.asked, "mend")
    rows = np.concatenate(shown).astype(float)
    owner = np.repeat(np.arange(10), [len(own) for own in shown])
    cosines = rows @ rows.T / np.outer(*[np.linalg.norm(rows, axis=1)] * 2)
    edges = 0
    for client in range(10):
        own = cosines[owner == client][:, owner != client]
        joined, which = told[client]["edges"]
        for row, values in enumerate(own):
            least = max(np.sort(values)[-5], 0.5)
            found = told[client]["representations"][which[joined == row]].astype(float)
            assert len(found) == min(5, int((values > 0.5).sum()))
            reached = found @ shown[client][row] / np.linalg.norm(found, axis=1) / np.linalg.norm(shown[client][row])
            assert (reached >= least - 1e-5).all()
            edges += len(found)
        as_shown = {row.tobytes() for other in range(10) if other != client for row in shown[other]}
        assert {row.tobytes() for row in told[client]["representations"]} <= as_shown
    figures = recorded.outcome.summary["similar_nodes"][0]
    assert figures["edges"] == edges / 10 and edges > 1000
    assert figures["nodes"] == np.mean([len(told[client]["representations"]) for client in range(10)])


def test_the_reported_shares_are_those_of_the_graphs(recorded: Recorded) -> None:
    nodes, told = nodes_of(recorded), recorded.arrays(recorded.asked, "mend")
    shown = recorded.shown()
    rows = np.concatenate(shown)
    ids = np.concatenate([graph.node_ids[order] for graph, order in zip(recorded.clients, nodes, strict=True)])
    labels = np.concatenate([graph.labels[order] for graph, order in zip(recorded.clients, nodes, strict=True)])  # type: ignore[index]
    places: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.tobytes(), []).append(place)
    found: dict[str, list[list[bool]]] = {"same_class": [], "cross_edges": [], "same_node": []}
    for client, graph in enumerate(recorded.clients):
        cross = {(int(graph.node_ids[own]), int(other)) for own, other in graph.cross_edges.T}
        for own, which in told[client]["edges"].T:
            # Nodes with the same neighbours have one representation, and only their client tells them apart.
            others = places[told[client]["representations"][which].tobytes()]
            node = nodes[client][own]
            found["same_class"].append([bool(graph.labels[node] == labels[other]) for other in others])  # type: ignore[index]
            found["cross_edges"].append([(int(graph.node_ids[node]), int(ids[other])) in cross for other in others])
            found["same_node"].append([bool(graph.node_ids[node] == ids[other]) for other in others])
    figures = recorded.outcome.summary["similar_nodes"][0]
    for name, least in (("same_class", 0.3), ("cross_edges", 0.01), ("same_node", 0.01)):
        low, high = (float(np.mean([choose(each) for each in found[name]])) for choose in (min, max))
        assert low - 1e-3 <= figures[name] <= high + 1e-3 and high - low < 0.1, (name, low, figures[name], high)
        assert least < figures[name] < 1


def test_exchanges_and_their_bytes(recorded: Recorded) -> None:
    phases = recorded.outcome.summary["exchanges"]
    assert [(phase["action"], phase["round"]) for phase in phases] == [
        (action, server_round) for server_round in (1, 3) for action in ("representations", "mend")
    ]
    assert [figures["round"] for figures in recorded.outcome.summary["similar_nodes"]] == [1, 3]
    shown, told = sum(map(len, recorded.shown())), recorded.arrays(recorded.asked, "mend")
    assert phases[0]["bytes_down"] == 10 * 4 * (64 * 16 + 16) and phases[0]["bytes_up"] == 4 * 16 * shown
    sent = sum(64 * len(stack["representations"]) + 8 * stack["edges"].shape[1] for stack in told.values())
    assert phases[1]["bytes_down"] == sent and phases[1]["bytes_up"] == 0
    rounds = sum(record["bytes_up"] for record in recorded.outcome.rounds)
    assert recorded.outcome.summary["bytes_up"] == rounds + phases[0]["bytes_up"] + phases[2]["bytes_up"]


def test_no_message_holds_a_clients_ids_features_or_edges(recorded: Recorded) -> None:
    payloads = [recorddict_to_proto(m.content).SerializeToString() for m in (*recorded.asked, *recorded.replies)]
    for graph in recorded.clients:
        features = graph.features if isinstance(graph.features, np.ndarray) else graph.features.toarray()
        secrets = [graph.node_ids.astype(kind)[:8].tobytes() for kind in ("<i8", "<i4", "<u2")]
        secrets += [graph.edge_index[end, :32].tobytes() for end in (0, 1)]
        secrets += [row.tobytes() for row in features[:50]]
        for secret in secrets:
            assert not any(secret in payload for payload in payloads)


def test_rows_are_in_no_order_of_ids_and_in_another_one_each_time(recorded: Recorded) -> None:
    for nodes in nodes_of(recorded):
        rising = int((np.diff(nodes) > 0).sum())
        assert abs(rising - (len(nodes) - 1) / 2) < 6 * (len(nodes) / 12) ** 0.5  # of a random order's rises
    ups = [np.argsort(np.linalg.norm(shown, axis=1)).tolist() for shown in (recorded.shown(0)[0], recorded.shown(1)[0])]
    assert ups[0] != ups[1]


# Placement and resumption ---------------------------------------------------------------------------------------------


def test_chunks_change_nothing(tmp_path: Path) -> None:
    once = (*METHOD, "method.exchange_every=0")
    one = run_inline(tmp_path / "one", *once, "runtime.chunk=1")
    for name, placed in (("three", ("runtime.nodes=3", "runtime.chunk=all")), ("two", ("runtime.chunk=2",))):
        assert_same_numbers(run_inline(tmp_path / name, *once, *placed), one)


def test_nodes_change_nothing_where_graphs_are_mended_again(tmp_path: Path) -> None:
    one = run_inline(tmp_path / "one", *METHOD, *AGAIN, "runtime.chunk=1")
    assert_same_numbers(run_inline(tmp_path / "ten", *METHOD, *AGAIN, "runtime.chunk=1", "runtime.nodes=10"), one)


@pytest.mark.slow
def test_under_ray_the_numbers_are_the_same(tmp_path: Path) -> None:
    placed = ("runtime.nodes=2", "runtime.chunk=1")
    found = command(
        *(*METHOD, *AGAIN, *placed, "runtime=ray", "runtime.total_cpus=2", "runtime.threads=1"),
        directory=tmp_path / "ray",
        cwd=tmp_path,
        timeout=400,
    )
    assert found.code == 0, found.stderr
    assert_same_numbers(found, run_inline(tmp_path / "inline", *METHOD, *AGAIN, *placed))


@pytest.mark.parametrize("some", [(), ("federation.fraction=0.5", "runtime.nodes=10")], ids=["all", "half"])
def test_a_run_goes_on_with_the_graphs_that_clients_have_mended(some: tuple[str, ...], tmp_path: Path) -> None:
    """Broken off in round 5, after the checkpoint of round 4; there were exchanges before rounds 1 and 4."""
    more = ("federation.rounds=8", "method.exchange_every=3", "record.checkpoint_every=2", "runtime.chunk=1")
    overrides = (*METHOD, *more, *some)
    break_off(tmp_path / "run", "round 5", *overrides)
    found, expected = resumed(tmp_path / "run"), run_inline(tmp_path / "unbroken", *overrides)
    assert_same(found, expected)
    assert [figures["round"] for figures in found.summary["similar_nodes"]] == [1, 4, 7]


def test_an_exchange_after_the_checkpoint_is_repeated(tmp_path: Path) -> None:
    overrides = (*METHOD, "federation.rounds=6", "method.exchange_every=4", "record.checkpoint_every=2")
    break_off(tmp_path / "run", "round 5", *overrides)
    assert_same(resumed(tmp_path / "run"), run_inline(tmp_path / "unbroken", *overrides))


# Who cannot, and privacy ----------------------------------------------------------------------------------------------


class Refusing(SimilarNodesClient):
    """Client 3 shows nothing."""

    def answer_of(self, client_id: int, question: Question) -> Stack:
        if client_id == 3:
            raise OSError("the disk is full")
        return super().answer_of(client_id, question)


def test_a_client_that_shows_nothing_trains_on_its_own_graph(tmp_path: Path) -> None:
    short = (*SMALL, "federation.rounds=1", "runtime.on_client_failure=continue", "runtime.chunk=1")
    refusing = f"method.client={__name__}.Refusing"
    found = run_inline(tmp_path / "run", *short, "method=fedgnn_subgraph", refusing)
    plain = run_inline(tmp_path / "plain", *short, "method=fedavg")
    assert found.summary["status"] == "completed"
    assert found.summary["similar_nodes"][0]["clients"] == 9
    difference = np.abs(found.values("train_loss")[0] - plain.values("train_loss")[0])
    assert difference[3] == 0 and (np.delete(difference, 3) > 1e-5).all()


@pytest.mark.parametrize("model", ["gcn", "sage"])
def test_every_network_hears_the_new_nodes(model: str, inline_run: Callable[..., Outcome]) -> None:
    short = (f"model={model}", *SMALL, "federation.rounds=1")
    mended, plain = inline_run(*short, "method=fedgnn_subgraph"), inline_run(*short, "method=fedavg")
    assert (np.abs(mended.values("train_loss") - plain.values("train_loss")) > 1e-5).all()


def test_link_prediction_has_classes_of_nobody(inline_run: Callable[..., Outcome]) -> None:
    found = inline_run(*METHOD, "task=link_prediction", "federation.rounds=2")
    assert found.summary["status"] == "completed" and np.isfinite(found.values("test")).all()


def test_protected_representations_and_what_protects_them(
    recorded: Recorded, inline_run: Callable[..., Outcome], tmp_path: Path
) -> None:
    mechanism = ("privacy=gaussian_l2", "privacy.clip=1e4", "privacy.noise_multiplier=1e-5")  # a deviation of 0.2
    protected = record_run(tmp_path, *METHOD, *AGAIN, "runtime.nodes=3", *mechanism)
    noise = np.concatenate([one - other for one, other in zip(protected.shown(), recorded.shown(), strict=True)])
    assert noise.std() == pytest.approx(0.2, rel=0.03) and abs(noise.mean()) < 0.01
    said = protected.outcome.summary["privacy"]
    assert said["num_uploads"] == 2 and said["num_coordinates"] == 16 and "not protected" in said["covers"]
    assert said["exchange_epsilon"] < said["user_level_epsilon"]
    assert "privacy" not in recorded.outcome.summary


def test_a_single_convolution_is_refused(tmp_path: Path) -> None:
    found: Any = command(*METHOD, "model.layers=1", directory=tmp_path / "run", cwd=tmp_path)
    assert found.code == 2 and found.complaint.startswith("subfl: model.layers: with method=fedgnn_subgraph ")
