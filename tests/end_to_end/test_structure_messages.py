"""Messages of a whole SubPFed run: of shared nodes keyed hashes and three numbers, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import recorddict_to_proto
from message_kinds import domain_of
from run_outcomes import Outcome, run_inline

from subfl_flower.composition import composed_config
from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.models.settings import ModelSettings
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.wire.array_bytes import read_array

OVERRIDES = (
    *("dataset=digits", "method=subpfed", "partition=overlap_rate", "partition.rate=0.2", "model.hidden=16"),
    *("federation.rounds=2", "runtime.nodes=3", "record.mixing_every=1"),
)


@dataclass(frozen=True)
class Recorded:
    """A run, the key of its clients, their graphs, and what went from the server to nodes and back."""

    outcome: Outcome
    key: bytes
    clients: list[ClientGraph]
    asked: list[Message]
    replies: list[Message]

    def structures(self) -> dict[int, dict[str, np.ndarray]]:
        """Arrays that the server received in ``query.structure``, by client and name."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for reply in self.replies_to("query.structure"):
            (record,) = reply.content.array_records.values()
            for name, array in record.items():
                client, array_name = name.split("/")
                found.setdefault(int(client), {})[array_name] = read_array(array)
        return found

    def replies_to(self, kind: str) -> list[Message]:
        return [reply for ask, reply in zip(self.asked, self.replies, strict=True) if domain_of(ask) == kind]

    def payloads(self) -> list[bytes]:
        """Every message in either direction, as it would travel."""
        return [recorddict_to_proto(m.content).SerializeToString() for m in (*self.asked, *self.replies)]


def record_run(folder: Path) -> Recorded:
    """A run with a separate folder for its cache, and so for the clients' key."""
    asked: list[Message] = []
    replies: list[Message] = []
    handle = InlineGrid._handle

    def recording(self: InlineGrid, message: Message) -> Message:
        asked.append(message)
        replies.append(handle(self, message))
        return replies[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBFL_CACHE", str(folder / "cache"))
        patch.setattr(InlineGrid, "_handle", recording)
        outcome = run_inline(folder / "run", *OVERRIDES)
        config, _ = composed_config(list(OVERRIDES))
    partition = prepare(config.dataset, config.partition, config.data.root, config.data.cache)
    clients = [partition.client(client_id) for client_id in range(partition.num_clients)]
    return Recorded(outcome, (folder / "cache" / "clients.key").read_bytes(), clients, asked, replies)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record_run(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def with_another_key(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record_run(tmp_path_factory.mktemp("another"))


def test_a_client_tells_four_numbers_of_each_shareable_node_and_nothing_else(recorded: Recorded) -> None:
    structures = recorded.structures()
    assert sorted(structures) == list(range(10))
    for graph in recorded.clients:
        shareable = int(graph.shareable.sum())
        assert 0 < shareable < graph.num_nodes
        answer = structures[graph.client_id]
        assert {name: (str(values.dtype), values.shape) for name, values in answer.items()} == {
            "tokens": ("uint8", (shareable, 16)),
            "distances": ("int64", (shareable,)),
            "reach": ("int64", (shareable,)),
            "degrees": ("int64", (shareable,)),
        }
    for reply in recorded.replies_to("query.structure"):
        assert list(reply.content) == ["arrays", "outcome"]
        outcome = reply.content.config_records["outcome"]
        assert set(outcome) == {"clients", "failures"} and outcome["failures"] == "{}"


def test_the_whole_answer_is_no_larger_than_its_tokens_and_numbers(recorded: Recorded) -> None:
    """A row of features is 64 floats, and a client's edges outnumber its shareable nodes: there is no room for them."""
    shareable = sum(int(graph.shareable.sum()) for graph in recorded.clients)
    replies = recorded.replies_to("query.structure")
    assert len(replies) == 3
    payload = sum(len(recorddict_to_proto(reply.content).SerializeToString()) for reply in replies)
    assert 40 * shareable <= payload < 40 * shareable + 10 * 4 * 300  # names, types and NumPy's headers of 40 arrays
    (phase,) = recorded.outcome.summary["exchanges"]
    assert phase["action"] == "structure" and phase["bytes_up"] == 40 * shareable
    features = sum(graph.features[graph.shareable].nbytes for graph in recorded.clients)
    edges = sum(graph.edge_index.nbytes for graph in recorded.clients)
    assert payload < features and payload < edges


def test_the_numbers_are_neither_ids_nor_features(recorded: Recorded) -> None:
    for graph in recorded.clients:
        answer = recorded.structures()[graph.client_id]
        local = np.flatnonzero(graph.shareable)
        for name in ("distances", "reach", "degrees"):
            for ids in (local, graph.node_ids[graph.shareable]):
                assert not np.array_equal(np.sort(answer[name]), ids)
        degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)[graph.shareable]
        assert sorted(answer["degrees"]) == sorted(degrees)


def test_no_id_is_in_the_tokens(recorded: Recorded) -> None:
    for graph in recorded.clients:
        tokens = recorded.structures()[graph.client_id]["tokens"]
        told = graph.node_ids[graph.shareable]
        for row in (row.tobytes() for row in tokens):
            halves = {struct.unpack(order, part)[0] for order in ("<q", ">q") for part in (row[:8], row[8:])}
            assert not halves & set(range(1797))
        rows = {row.tobytes() for row in tokens}
        for node in (*told.tolist(), *np.flatnonzero(graph.shareable).tolist()):
            for written in (
                struct.pack("<q", node),
                struct.pack(">q", node),
                struct.pack("<i", node),
                str(node).encode(),
            ):
                assert hashlib.blake2b(written, digest_size=16).digest() not in rows
                assert hashlib.sha256(written).digest()[:16] not in rows and hashlib.md5(written).digest() not in rows
        # With the clients' key they are the hashes of these very ids.
        expected = {
            hashlib.blake2b(struct.pack("<q", n), key=recorded.key, digest_size=16).digest() for n in told.tolist()
        }
        assert rows == expected


def test_no_message_holds_a_clients_ids_edges_or_features(recorded: Recorded) -> None:
    payloads = recorded.payloads()
    for graph in recorded.clients:
        told = graph.node_ids[graph.shareable]
        secrets = [ids.astype(kind)[:8].tobytes() for ids in (told, graph.node_ids) for kind in ("<i8", "<i4", "<u2")]
        secrets += [graph.edge_index[end, :32].tobytes() for end in (0, 1)]
        secrets += [row.tobytes() for row in graph.features[:50]]
        for secret in secrets:
            assert not any(secret in payload for payload in payloads)


def test_rows_are_in_no_order_of_ids(recorded: Recorded) -> None:
    for graph in recorded.clients:
        tokens = recorded.structures()[graph.client_id]["tokens"]
        node_of = {
            hashlib.blake2b(struct.pack("<q", node), key=recorded.key, digest_size=16).digest(): node
            for node in graph.node_ids.tolist()
        }
        nodes = np.array([node_of[row.tobytes()] for row in tokens])
        rising = int((np.diff(nodes) > 0).sum())
        assert (
            abs(rising - (len(nodes) - 1) / 2) < 6 * len(nodes) ** 0.5 / 3.4
        )  # a random order's rises have n/12 variance


def test_training_replies_hold_parameters_and_embeddings_alone(recorded: Recorded) -> None:
    shapes = StackedGCN(ModelSettings(name="gcn", hidden=16), 64, 10).shapes
    replies = recorded.replies_to("train")
    assert len(replies) == 6
    for reply in replies:
        (record,) = reply.content.array_records.values()
        layout = reply.content.config_records["layout"]
        clients = layout["clients"]
        sent = {key.removesuffix(".shape"): tuple(value) for key, value in layout.items() if key.endswith(".shape")}  # type: ignore[arg-type]
        assert sent == {
            **{name: (clients, *shape) for name, shape in shapes.items()},
            "functional_embedding": (clients, 16),
        }
        for name in record:
            assert name in sent or name.rsplit(".", 1)[0] in sent


def test_the_key_is_in_no_message_and_in_no_file_of_the_run(recorded: Recorded) -> None:
    key = recorded.key
    assert len(key) == 32
    forms = [key, key.hex().encode(), base64.b64encode(key).rstrip(b"="), key[:16], key[16:]]
    files = [path.read_bytes() for path in recorded.outcome.directory.rglob("*") if path.is_file()]
    assert len(files) > 10  # the models are among them
    for text in (*recorded.payloads(), *files):
        assert not any(form in text for form in forms)
    kinds = {domain_of(message) for message in recorded.asked}
    assert kinds == {"query.roster", "query.structure", "train", "query.export"}


def test_another_key_gives_other_tokens_and_the_same_numbers(recorded: Recorded, with_another_key: Recorded) -> None:
    assert recorded.key != with_another_key.key
    everyones = [
        {row.tobytes() for answer in run.structures().values() for row in answer["tokens"]}
        for run in (recorded, with_another_key)
    ]
    assert len(everyones[0]) == len(everyones[1]) > 100 and not everyones[0] & everyones[1]
    for name in ("train_loss", "validation", "test", "test_as_received"):
        np.testing.assert_allclose(
            recorded.outcome.values(name), with_another_key.outcome.values(name), atol=1e-6, err_msg=name
        )
    for server_round, matrix in recorded.outcome.mixing.items():
        np.testing.assert_allclose(matrix, with_another_key.outcome.mixing[server_round], atol=1e-6)
