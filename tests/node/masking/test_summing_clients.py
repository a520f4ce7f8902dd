"""A hostile server in a secure sum: a node's clients give each part once, to the sum that they began, and no more."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from subfl_flower.client_app import app
from subfl_flower.composition import composed_config
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.node.open_nodes import forget_nodes, open_node
from subfl_flower.privacy.secure_aggregation.member import Member
from subfl_flower.privacy.secure_aggregation.roll import Advert, sum_context
from subfl_flower.server.exchange import ASK, PHASE, client_arrays
from subfl_flower.server.round_messages import RUN
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.payload import ARRAYS, pack, unpack
from subfl_flower.wire.replies import OUTCOME
from subfl_flower.wire.summed import (
    ADVERT,
    ADVERTS,
    BOXES,
    CLIENTS,
    KEYS,
    MASKED,
    NONCE,
    REVEAL,
    SHARES,
    SHARING,
    SURVIVORS,
    ids_bytes,
    masked_upload,
)

EVERYONE = list(range(6))
OVERRIDES = (
    *("dataset=digits", "method=fedavg", "model.hidden=4", "federation.local_epochs=1", "partition.clients=6"),
    *("secure_sums.enabled=true", "record.checkpoint_every=1"),
)


class Server:
    """A server with one node of six clients, that asks whatever it likes."""

    def __init__(self, grid: InlineGrid, folder: Path, about: dict[str, Any] | None = None) -> None:
        self._grid = grid
        config, _ = composed_config(list(OVERRIDES))
        self._run = {"config": json.dumps(config.plain()), "id": "ab12", "directory": str(folder), "keep": True}
        self._run |= about or {}
        self.round, self.nonce, self.adverts, self.boxes = (
            1,
            secrets.token_bytes(16),
            b"",
            dict[int, dict[int, bytes]](),
        )
        record = ConfigRecord({**self._run, "round": 1, "clients": EVERYONE})
        client = open_node(record, next(iter(grid._contexts.values()))).of_clients()
        self.model = client.client(record, next(iter(grid._contexts.values()))).run.initial
        self.size = masked_upload({**{n: v.shape for n, v in self.model.items()}, "weight": ()})[MASKED].shape[0]

    def asked(
        self, phase: str, sent: dict[int, Stack] | None = None, **about: Any
    ) -> tuple[dict[int, Stack], dict[str, str]]:
        """Answers by client, and reasons of those that refuse."""
        stacks = {client: {} for client in EVERYONE} if sent is None else sent
        entries = {**self._run, "round": self.round, NONCE: self.nonce, ADVERTS: self.adverts, **about}
        content = RecordDict({RUN: ConfigRecord({**entries, PHASE: phase, "clients": list(stacks)})})
        content[ARRAYS] = client_arrays(stacks)
        (reply,) = self._grid.send_and_receive([Message(content, 1, f"query.{ASK}")])
        assert not reply.has_error(), reply.error
        found: dict[int, Stack] = {}
        for name, array in reply.content.array_records[ARRAYS].items():
            client, _, key = name.partition("/")
            found.setdefault(int(client), {})[key] = array.numpy()
        return found, json.loads(str(reply.content.config_records[OUTCOME]["failures"]))

    def begin(self) -> None:
        """Two phases, as an honest server asks them."""
        self.gather_keys()
        self.gather_shares()

    def gather_keys(self) -> None:
        answers, failures = self.asked(KEYS)
        assert failures == {} and sorted(answers) == EVERYONE
        self.adverts = b"".join(answers[client][ADVERT].tobytes() for client in EVERYONE)

    def gather_shares(self) -> None:
        answers, failures = self.asked(SHARES)
        assert failures == {}
        for client, answer in answers.items():
            to = zip(answer[CLIENTS].tolist(), answer[BOXES], strict=True)
            self.boxes[client] = {receiver: box.tobytes() for receiver, box in to}

    def uploads(self, sharing: Sequence[int] = EVERYONE, **about: Any) -> tuple[dict[int, np.ndarray], dict[str, str]]:
        entries = {**self._run, "round": self.round, "clients": EVERYONE, NONCE: self.nonce, ADVERTS: self.adverts}
        entries = {**entries, SHARING: ids_bytes(sharing), **about}
        content = RecordDict({RUN: ConfigRecord({key: value for key, value in entries.items() if value is not None})})
        pack(Choice.for_all(dict(self.model), len(EVERYONE))).into(content)
        (reply,) = self._grid.send_and_receive([Message(content, 1, "train")])
        assert not reply.has_error(), reply.error
        outcome = reply.content.config_records[OUTCOME]
        clients: Any = outcome["clients"]
        stack, _ = unpack(reply.content) if clients else ({MASKED: []}, None)
        assert set(stack) == {MASKED}
        return dict(zip(clients, stack[MASKED], strict=True)), json.loads(str(outcome["failures"]))

    def reveal(
        self, survivors: Sequence[int] = EVERYONE, sharing: Sequence[int] = EVERYONE
    ) -> tuple[dict[int, Stack], dict[str, str]]:
        sent = {}
        for client in survivors:
            boxes = {owner: self.boxes[owner][client] for owner in sharing if client in self.boxes[owner]}
            rows = [np.frombuffer(box, dtype=np.uint8) for box in boxes.values()]
            sent[client] = {CLIENTS: np.array(list(boxes), dtype=np.int64), BOXES: np.stack(rows)}
        return self.asked(REVEAL, sent, **{SHARING: ids_bytes(sharing), SURVIVORS: ids_bytes(survivors)})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    try:
        with InlineGrid(app, 1).active() as grid:
            yield Server(grid, tmp_path)
    finally:
        forget_nodes()


def test_an_honest_server_gets_each_part_once(server: Server) -> None:
    server.begin()
    uploads, failures = server.uploads()
    assert failures == {} and sorted(uploads) == EVERYONE
    assert {values.dtype for values in uploads.values()} == {np.dtype("uint64")}
    assert {len(values) for values in uploads.values()} == {server.size}
    answers, failures = server.reveal()
    assert failures == {} and all(sorted(each[CLIENTS].tolist()) == EVERYONE for each in answers.values())


def test_attack_a_second_reveal_with_other_survivors(server: Server) -> None:
    """The first answer has shares of self-masks, the second would have those of mask keys: both give an upload."""
    server.begin()
    server.uploads()
    assert server.reveal()[1] == {}
    answers, refused = server.reveal(survivors=EVERYONE[1:])
    assert answers == {} and len(refused) == 5
    assert refused["1"] == "client 1 gave its answer before; a secure sum takes them once"


def test_attack_a_second_upload_under_the_same_masks(server: Server) -> None:
    """The server sends another model in the same round: the difference of two uploads would have no masks."""
    server.begin()
    first, _ = server.uploads()
    second, refused = server.uploads()
    assert len(first) == 6 and second == {}
    assert refused["0"] == "client 0 gave its upload before; a secure sum takes them once"


def test_attack_secrets_are_shared_twice(server: Server) -> None:
    server.begin()
    answers, refused = server.asked(SHARES)
    assert answers == {} and refused["0"] == "client 0 gave its shares before; a secure sum takes them once"


def test_attack_an_upload_without_masks_is_asked_for(server: Server) -> None:
    """Without a sum, with another sum's value, or before secrets were shared: nothing leaves."""
    none, refused = server.uploads()
    assert none == {} and refused["0"] == "client 0 has begun no secure sum in round 1"
    server.gather_keys()
    none, refused = server.uploads()
    assert none == {} and set(refused) == set(map(str, EVERYONE))
    server.gather_shares()
    none, refused = server.uploads(**{NONCE: bytes(16)})
    assert none == {} and len(refused) == 6
    none, refused = server.uploads(**{NONCE: None, ADVERTS: None, SHARING: None})
    assert none == {} and refused["0"] == "the server began no secure sum: uploads are not sent without one"
    none, refused = server.uploads(**{NONCE: b""})
    assert none == {} and refused["0"] == "the server began no secure sum: uploads are not sent without one"


def test_attack_a_sum_is_made_of_too_few(server: Server) -> None:
    server.begin()
    none, refused = server.uploads(sharing=[0, 1, 2])
    assert none == {} and refused["0"] == "only 3 of 6 clients shared their keys, and a secure sum needs 4"


def test_attack_the_server_says_that_too_few_are_left(server: Server) -> None:
    server.begin()
    server.uploads()
    answers, refused = server.reveal(survivors=[0, 1, 2])
    assert answers == {} and refused["0"] == "only 3 of 6 clients are left, and a secure sum needs 4"
    assert server.reveal(survivors=EVERYONE)[1] == {}  # a refusal has used nothing up


def test_attack_the_server_names_other_sharers_when_it_opens_the_sum(server: Server) -> None:
    server.begin()
    server.uploads(sharing=[0, 1, 2, 3, 4])
    answers, refused = server.reveal(survivors=[0, 1, 2, 3, 4], sharing=EVERYONE)
    assert answers == {} and refused["0"] == "the server names other sharers of keys than when the upload was masked"


def test_attack_the_server_takes_the_place_of_other_clients(server: Server) -> None:
    """It answers for five clients with keys that it made, to be alone with the sixth."""
    server.gather_keys()
    context = sum_context("ab12", 1, server.nonce)
    genuine = Advert.decode_all(server.adverts)[0]
    own = [Member.new(client, context).advert(bytes(32)) for client in EVERYONE[1:]]
    server.adverts = b"".join(advert.encode() for advert in [genuine, *own])
    answers, refused = server.asked(SHARES, {0: {}})
    assert answers == {}
    assert refused["0"] == "the keys of client 1 for a secure sum were not made with the clients' shared key"


def test_attack_secrets_outlive_the_sum(server: Server, tmp_path: Path) -> None:
    """After the last answer no file and no memory of the node has what would remove the masks."""
    server.begin()
    kept = open_node_kept(server)
    before = kept.get(0, "secure-sum")["secrets"].tobytes()
    server.uploads()
    assert kept.get(0, "secure-sum")["secrets"].tobytes() == before and before != bytes(96)
    server.reveal()
    assert kept.get(0, "secure-sum")["secrets"].tobytes() == bytes(96)
    assert not any(before[:32] in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def open_node_kept(server: Server) -> Any:
    record = ConfigRecord({**server._run, "round": 1, "clients": EVERYONE})
    context = next(iter(server._grid._contexts.values()))
    return open_node(record, context).of_clients().client(record, context).store.kept


def test_a_round_begun_again_has_other_keys_and_masks(server: Server) -> None:
    """As after a server that was killed between the upload and the opening."""
    server.begin()
    first, keys = server.uploads()[0], server.adverts
    server.nonce = secrets.token_bytes(16)
    server.begin()
    second, _ = server.uploads()
    assert keys != server.adverts and not any((first[client] == second[client]).any() for client in EVERYONE)
    assert server.reveal()[1] == {}


def test_a_client_whose_values_are_too_large_to_be_summed_fails_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ConfigRecord({**server._run, "round": 1, "clients": EVERYONE})
    context = next(iter(server._grid._contexts.values()))
    family = type(open_node(record, context).of_clients().client(record, context))
    weighted = family.summands

    def huge(self: Any, result: Any, row: int) -> Stack:
        found = weighted(self, result, row)
        return {name: values * 1e12 for name, values in found.items()} if result.clients[row] == 2 else found

    monkeypatch.setattr(family, "summands", huge)
    server.begin()
    uploads, failures = server.uploads()
    assert sorted(uploads) == [0, 1, 3, 4, 5]
    assert failures["2"].startswith("values to add up under masks must be finite and below")
