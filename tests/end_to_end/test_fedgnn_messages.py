"""Messages of a whole FedGNN run with graph expansion: who could learn what, and the effect of a spoilt box."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from flwr.app.error import Error
from flwr.common.serde import recorddict_to_proto
from flwr.serverapp import Grid
from message_kinds import domain_of
from run_outcomes import Outcome, run_inline

from subfl_flower.clients.recommendation.fedgnn import FedGNNClient
from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.composition import composed_config
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.prepared.ratings import prepare_ratings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.node.matcher import ContextMemory, MatcherNode, expansion_context
from subfl_flower.node.state import CohortState
from subfl_flower.privacy.expansion import Request
from subfl_flower.privacy.sealed_box import MatcherKey, open_box, unpad
from subfl_flower.privacy.tokens import token_table
from subfl_flower.recommendation.models.recommender_file import Recommender
from subfl_flower.strategies.recommendation.fedgnn import FedGNN
from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.batch import Answers, Batch, Question, Result
from subfl_flower.wire.payload import ARRAYS, unpack

USERS, ITEMS, DIM, MOST, NODES, ROUNDS = 24, 40, 4, 3, 3, 3
RUN = (
    *("method=fedgnn", f"dataset.num_users={USERS}", f"dataset.num_items={ITEMS}", "dataset.ratings_per_user=12"),
    *(f"model.dim={DIM}", "method.users_per_round=8", "method.pseudo_items=10", f"federation.rounds={ROUNDS}"),
    *("method.evaluate_every=1", f"method.max_neighbours={MOST}", "method.expansion_every=1"),
    f"runtime.nodes={NODES}",
)
MATCHER = NODES + 1


@dataclass
class Recorded:
    """A run: what was sent and replied, what the server kept, and what only users and the matcher know."""

    outcome: Outcome
    key: bytes
    ratings: Ratings
    asked: list[Message] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    server: list[dict[str, np.ndarray]] = field(default_factory=list)
    personal: dict[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    """Secrets of each user, after each round that it trained in, by round and user."""
    matcher_key: MatcherKey | None = None

    def of(self, *kinds: str) -> list[tuple[Message, Message]]:
        pairs = zip(self.asked, self.replies, strict=True)
        return [(ask, reply) for ask, reply in pairs if domain_of(ask) in kinds]

    @property
    def tokens(self) -> np.ndarray:
        """Those of the run's items, uint8 [items, 16]."""
        return token_table(ITEMS, self.key, str(self.outcome.summary["run_id"]).encode())

    def rated(self, user: int) -> np.ndarray:
        own = self.ratings.of_users([user])
        return own.items[own.roles == TRAIN]

    def boxes(self, server_round: int) -> dict[int, bytes]:
        """Boxes that the matcher was sent in a round, by their numbers."""
        (ask,) = [
            ask for ask, _ in self.of("query.match") if ask.content.config_records["run"]["round"] == server_round
        ]
        arrays = ask.content.array_records[ARRAYS]
        return {int(name.split("/")[0]): read_array(array).tobytes() for name, array in arrays.items()}

    def request_of(self, box: bytes, server_round: int) -> Request:
        assert self.matcher_key is not None
        context = expansion_context(self.outcome.summary["run_id"], server_round)
        return Request.decode(unpad(open_box(box, self.matcher_key, context)), DIM)


def payload(message: Message) -> bytes:
    """A message as it would travel."""
    return recorddict_to_proto(message.content).SerializeToString()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run without noise, so that what travels is as near to what it was made of as it ever is."""
    folder = tmp_path_factory.mktemp("recorded")
    found = Recorded(Outcome(folder / "run"), b"", Ratings(*(np.zeros(0),) * 5, ITEMS, (1.0, 5.0)))  # type: ignore[arg-type]
    handle, state, steps = InlineGrid._handle, FedGNN.aggregate, RecommenderClient.train_chunk

    def recording(self: InlineGrid, message: Message) -> Message:
        found.asked.append(message)
        reply = handle(self, message)
        found.replies.append(reply)
        if domain_of(message) == "query.match":
            found.matcher_key = ContextMemory(self._contexts[MATCHER].state).key()
        return reply

    def aggregating(self: FedGNN, updates: Any) -> None:
        state(self, updates)
        found.server.append({name: np.array(values) for name, values in self.state().items()})

    def training(self: FedGNNClient, batch: Batch, kept: CohortState) -> Result:
        worked = steps(self, batch, kept)
        names = ("user", "user_bias", "neighbours")
        values = {name: kept[name].clone().numpy() for name in names}
        for client in batch.clients:
            own = {name: values[name][self.position_of[client]] for name in names}
            found.personal[batch.server_round, client] = own
        return worked

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBFL_CACHE", str(folder / "cache"))
        patch.setattr(InlineGrid, "_handle", recording)
        patch.setattr(FedGNN, "aggregate", aggregating)
        patch.setattr(RecommenderClient, "train_chunk", training)
        run_inline(folder / "run", *RUN)
        config, _ = composed_config(list(RUN))
    found.ratings = prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache).whole()
    found.key = (folder / "cache" / "clients.key").read_bytes()
    return found


def test_a_run_has_the_phases_of_the_method(recorded: Recorded) -> None:
    assert recorded.outcome.summary["status"] == "completed"
    kinds = [domain_of(ask) for ask in recorded.asked]
    a_round = ["query.expand"] * NODES + ["query.match"] + ["query.neighbours"] * NODES
    assert [kind for kind in kinds if kind in ("query.expand", "query.match", "query.neighbours")] == a_round * ROUNDS
    assert set(kinds) == {"query.roster", "query.biases", "query.rows", "train", "evaluate", "query.export", *a_round}
    assert {ask.metadata.dst_node_id for ask, _ in recorded.of("query.match")} == {MATCHER}
    others = {
        ask.metadata.dst_node_id for ask in recorded.asked if domain_of(ask) not in ("query.match", "query.roster")
    }
    assert others == {1, 2, 3}


# What the server sees -------------------------------------------------------------------------------------------------


def everything_of_the_server(recorded: Recorded) -> list[bytes]:
    """Every message in either direction, and every array that the server kept after a round."""
    kept = [values.tobytes() for state in recorded.server for values in state.values()]
    assert len(recorded.server) == ROUNDS and sum(map(len, kept)) > 1000
    return [payload(message) for message in (*recorded.asked, *recorded.replies)] + kept


def test_the_server_never_holds_a_token_or_the_key_of_tokens(recorded: Recorded) -> None:
    held = everything_of_the_server(recorded)
    secrets = [row.tobytes() for row in recorded.tokens] + [recorded.key]
    assert len(set(secrets)) == ITEMS + 1
    for secret in secrets:
        assert not any(secret in text for text in held)


def test_the_server_never_holds_what_is_personal(recorded: Recorded) -> None:
    """Not even two values of an embedding one after the other, in any message or array, at any offset."""
    held = everything_of_the_server(recorded)
    assert len(recorded.personal) == 8 * ROUNDS
    pairs: set[bytes] = set()
    for own in recorded.personal.values():
        assert own["user"].dtype == np.float32 and np.count_nonzero(own["user"]) == DIM
        pairs |= {own["user"][start : start + 2].tobytes() for start in range(DIM - 1)}
    assert len(pairs) == 3 * 8 * ROUNDS
    for text in held:
        assert not {text[start : start + 8] for start in range(len(text) - 7)} & pairs


def test_no_upload_and_nothing_that_the_server_keeps_holds_any_personal_value(recorded: Recorded) -> None:
    """A bias is one value; four bytes may be in a sealed box by accident, and in nothing else."""
    singles = {own[name].tobytes() for own in recorded.personal.values() for name in ("user_bias",)}
    singles |= {value.tobytes() for own in recorded.personal.values() for value in own["user"]}
    users = {user for _, user in recorded.personal}
    assert len(singles) == DIM * 8 * ROUNDS + len(users)  # a user's bias follows from the items', and stays
    kept = [values.tobytes() for state in recorded.server for values in state.values()]
    for text in [payload(reply) for _, reply in recorded.of("train", "evaluate")] + kept:
        assert not {text[start : start + 4] for start in range(len(text) - 3)} & singles


def test_neighbours_embeddings_went_through_the_server_sealed(recorded: Recorded) -> None:
    held = everything_of_the_server(recorded)
    told = {row.tobytes() for own in recorded.personal.values() for row in own["neighbours"]} - {bytes(4 * DIM)}
    assert len(told) > 10
    for embedding in told:
        assert not any(embedding in text for text in held)


def test_the_server_cannot_open_what_it_carries(recorded: Recorded) -> None:
    matcher = recorded.matcher_key
    assert matcher is not None
    context = expansion_context(recorded.outcome.summary["run_id"], 1)
    box = next(iter(recorded.boxes(1).values()))
    assert len(recorded.request_of(box, 1).tokens) > 0  # with the matcher's key it opens
    for known in (matcher.public, recorded.outcome.summary["run_id"].encode() * 2, bytes(32)):
        with pytest.raises(SubflError, match="a sealed box was changed on its way, or is not of this key"):
            open_box(box, MatcherKey.from_bytes(known), context)
    private = matcher.to_bytes()
    assert not any(private in text for text in everything_of_the_server(recorded))


def test_what_comes_back_is_sealed_for_one_user_and_of_one_length(recorded: Recorded) -> None:
    sizes = set()
    for _, reply in recorded.of("query.match"):
        for array in reply.content.array_records[ARRAYS].values():
            sizes.add(len(read_array(array)))
    # 4 + 3 neighbours x 4 values x 4 bytes, padded to their next multiple, with 12 of a nonce and 16 of a tag.
    assert sizes == {4 + MOST * DIM * 4 + 28}


def test_users_send_gradients_and_which_rows_they_are_of_and_nothing_else(recorded: Recorded) -> None:
    replies = recorded.of("train")
    assert sum(len(ask.content.config_records["run"]["clients"]) for ask, _ in replies) == 8 * ROUNDS  # type: ignore[arg-type]
    for ask, reply in replies:
        asked = ask.content.config_records["run"]["clients"]
        stack = unpack(reply.content)[0]
        assert set(stack) == set(unpack(ask.content)[0]) - {"items"} > {"bias"}
        assert set(reply.content.metric_records["metrics"]) == {"num_examples", "train_loss"}
        assert set(reply.content) == {"arrays", "layout", "ragged", "ragged_lengths", "metrics", "outcome"}
        assert set(reply.content.array_records["ragged"]) == {"item_ids", "item_rows"}
        lengths = reply.content.config_records["ragged_lengths"]
        assert lengths["item_ids"] == lengths["item_rows"]
        ids = np.split(read_array(reply.content.array_records["ragged"]["item_ids"]), np.cumsum(lengths["item_ids"]))
        for user, own in zip(asked, ids, strict=False):  # type: ignore[arg-type]
            rated = recorded.rated(int(user))
            assert set(rated.tolist()) < set(own.tolist()) and (np.diff(own) > 0).all()
            assert len(own) == len(rated) + 10


# What the matcher sees ------------------------------------------------------------------------------------------------


def test_the_matcher_is_sent_boxes_under_numbers_and_nothing_else(recorded: Recorded) -> None:
    for ask, _ in recorded.of("query.match"):
        assert set(ask.content) == {"run", "arrays"}
        numbers = ask.content.config_records["run"]["clients"]
        assert sorted(numbers) == list(range(USERS))  # type: ignore[type-var]
        arrays = ask.content.array_records[ARRAYS]
        assert list(arrays) == [f"{number}/box" for number in numbers]  # type: ignore[union-attr]
        assert {str(read_array(array).dtype) for array in arrays.values()} == {"uint8"}
        # Padded to a power of two of at least 1024, with 48 of HPKE: the same for all these users.
        assert {len(read_array(array)) for array in arrays.values()} == {1024 + 48}


def users_behind(recorded: Recorded, server_round: int) -> list[int]:
    """Users of the boxes 0, 1, ...: found by their tokens, with the matcher's key and the clients' key."""
    items_of = {row.tobytes(): item for item, row in enumerate(recorded.tokens)}
    histories = {tuple(recorded.rated(user).tolist()): user for user in range(USERS)}
    assert len(histories) == USERS
    found = []
    for _, box in sorted(recorded.boxes(server_round).items()):
        request = recorded.request_of(box, server_round)
        found.append(histories[tuple(items_of[row.tobytes()] for row in request.tokens)])
    return found


def test_the_numbers_are_drawn_anew_and_say_nothing_of_clients(recorded: Recorded) -> None:
    orders = [users_behind(recorded, server_round) for server_round in (1, 2, 3)]
    for order in orders:
        assert sorted(order) == list(range(USERS)) and order != list(range(USERS))
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_of_boxes_in_the_message_is_that_of_the_numbers(recorded: Recorded) -> None:
    for server_round in (1, 2, 3):
        assert list(recorded.boxes(server_round)) == sorted(recorded.boxes(server_round))


def test_the_matcher_sees_no_item_and_no_key_of_items(recorded: Recorded) -> None:
    for ask, reply in recorded.of("query.match"):
        for text in (payload(ask), payload(reply)):
            assert recorded.key not in text
            for user in range(USERS):
                items = recorded.rated(user)
                if len(items) < 3:  # one or two small numbers may be anything
                    continue
                for kind in ("<i8", "<i4", "<i2", "u1"):
                    assert items.astype(kind).tobytes() not in text


def test_who_opens_a_box_sees_tokens_an_embedding_and_a_key_of_the_answer(recorded: Recorded) -> None:
    requests = [recorded.request_of(box, 2) for box in recorded.boxes(2).values()]
    users = users_behind(recorded, 2)
    trained = {user: own for (server_round, user), own in recorded.personal.items() if server_round == 1}
    checked = 0
    for user, request in zip(users, requests, strict=True):
        np.testing.assert_array_equal(request.tokens, recorded.tokens[recorded.rated(user)])
        if user in trained:  # in round 1, and the embedding is as it was then
            np.testing.assert_array_equal(request.embedding, trained[user]["user"])
            checked += 1
    assert checked == 8
    assert len({request.reply_key for request in requests}) == USERS


def test_users_know_the_neighbours_with_most_common_items(recorded: Recorded) -> None:
    """By sets of items, and by embeddings that the boxes held."""
    users = users_behind(recorded, 3)
    requests = [recorded.request_of(box, 3) for box in recorded.boxes(3).values()]
    embedding = {user: request.embedding for user, request in zip(users, requests, strict=True)}
    history = {user: set(recorded.rated(user).tolist()) for user in range(USERS)}
    chosen = {user: own for (server_round, user), own in recorded.personal.items() if server_round == 3}
    assert len(chosen) == 8
    for user, own in chosen.items():
        common = sorted((len(history[user] & history[v]) for v in range(USERS) if v != user), reverse=True)[:MOST]
        told = [v for row in own["neighbours"] for v in range(USERS) if np.array_equal(row, embedding[v])]
        assert len(told) == sum(count > 0 for count in common)
        assert [len(history[user] & history[v]) for v in told] == [count for count in common if count]
        assert user not in told


# What a spoilt box does -----------------------------------------------------------------------------------------------


@dataclass
class Spoiling:
    """A run in which something happens to what the matcher is sent or replies; which users then know neighbours."""

    outcome: Outcome
    warnings: list[str]
    refused: dict[int, dict[int, str]]

    @property
    def known(self) -> np.ndarray:
        (file,) = (self.outcome.directory / "users").iterdir()
        counts: np.ndarray = Recommender.read(file).personal["num_neighbours"]
        return counts


SHORT = (*RUN, "federation.rounds=2", "runtime.nodes=1", "method.evaluate_every=2")
"""The last round is the best: no other is evaluated, and what users know after it is exported."""


@pytest.fixture
def spoilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[..., Spoiling]:
    handle = InlineGrid._handle

    def run(change: Callable[[ArrayRecord, int], None], *overrides: str) -> Spoiling:
        refused: dict[int, dict[int, str]] = {}

        def spoiling(self: InlineGrid, message: Message) -> Message:
            if domain_of(message) != "query.match":
                return handle(self, message)
            server_round = int(message.content.config_records["run"]["round"])  # type: ignore[arg-type]
            change(message.content.array_records[ARRAYS], server_round)
            reply = handle(self, message)
            if reply.has_content():
                failures = json.loads(str(reply.content.config_records["outcome"]["failures"]))
                refused[server_round] = {int(number): reason for number, reason in failures.items()}
            return reply

        monkeypatch.setattr(InlineGrid, "_handle", spoiling)
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        outcome = run_inline(folder, *SHORT, *overrides)
        assert outcome.summary["status"] == "completed" and len(outcome.rounds) == 2
        assert all(record["failures"] == {} for record in outcome.rounds)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        caplog.clear()
        return Spoiling(outcome, said, refused)

    return run


def changed(box: Array, place: int) -> Array:
    values = read_array(box).copy()
    values[place] ^= 1
    return Array(values)


NOT_OPENED = "a sealed box was changed on its way, or is not of this key, round or run"


def test_boxes_that_were_changed_cut_or_replaced_are_refused_alone(spoilt: Callable[..., Spoiling]) -> None:
    def change(boxes: ArrayRecord, server_round: int) -> None:
        if server_round == 1:
            for number, place in ((0, 0), (1, 40), (2, 1071)):  # the ephemeral key, the text, the tag
                boxes[f"{number}/box"] = changed(boxes[f"{number}/box"], place)
            boxes["3/box"] = Array(read_array(boxes["3/box"])[:-1])
            boxes["4/box"] = Array(np.zeros(1072, np.uint8))
            boxes["5/box"] = Array(read_array(boxes["5/box"]).astype(np.int64))
            boxes["6/box"] = Array(np.zeros(0, np.uint8))
            del boxes["7/box"]

    found = spoilt(change, "method.expansion_every=9")
    assert found.refused == {1: dict.fromkeys(range(8), NOT_OPENED)}
    assert found.warnings == [f"the matcher refused 8 boxes: {NOT_OPENED}"]
    assert np.count_nonzero(found.known == 0) >= 8
    # All that got an answer know neighbours, as far as they have a common item with anybody who is left.
    assert np.count_nonzero(found.known) >= USERS - 8 - 2


def test_a_box_that_comes_again_is_refused_in_words(spoilt: Callable[..., Spoiling]) -> None:
    earlier: dict[str, Array] = {}

    def change(boxes: ArrayRecord, server_round: int) -> None:
        if server_round == 1:
            earlier.update(boxes)
            boxes["5/box"] = boxes["2/box"]  # the same twice in one phase
        else:
            boxes["3/box"] = earlier["3/box"]  # of an earlier round

    found = spoilt(change)
    assert found.refused == {1: {5: "a sealed box was sent a second time"}, 2: {3: NOT_OPENED}}
    assert found.warnings == [
        "the matcher refused 1 boxes: a sealed box was sent a second time",
        f"the matcher refused 1 boxes: {NOT_OPENED}",
    ]
    assert (found.known > 0).all()  # who was refused in one round keeps the neighbours of the other

    def of_another_run(boxes: ArrayRecord, server_round: int) -> None:
        boxes["4/box"] = earlier["4/box"]

    assert spoilt(of_another_run).refused == {1: {4: NOT_OPENED}, 2: {4: NOT_OPENED}}


def test_an_answer_that_was_changed_leaves_its_user_as_it_was(spoilt: Callable[..., Spoiling]) -> None:
    """The server cannot make up neighbours: who gets another's answer, or a changed one, does not open it."""
    sealed = MatcherNode.answer

    def swapped(self: MatcherNode, question: Question) -> Answers:
        found = sealed(self, question)
        answers = found.arrays
        answers[0], answers[1] = answers[1], answers[0]
        answers[2] = {"box": read_array(changed(Array(answers[2]["box"]), 20))}
        answers[3] = {"bag": answers[3]["box"]}
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MatcherNode, "answer", swapped)
        found = spoilt(lambda boxes, server_round: None, "method.expansion_every=9")
    assert np.count_nonzero(found.known == 0) == 4
    (said,) = found.warnings
    assert said.startswith("4 clients failed in query.neighbours, the first is client ")
    assert said.endswith(
        ("the server sent it no box", "a sealed answer was changed on its way, or is not to this request, round or run")
    )


# A matcher that does not work -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run whose first expansion would come after its end."""
    return run_inline(tmp_path_factory.mktemp("without") / "run", *SHORT, "method.expansion_start=99")


def raises(grid: InlineGrid, message: Message) -> Message:
    return Message(Error(code=4, reason="OSError: the disk is full"), reply_to=message)


def unreadable(grid: InlineGrid, message: Message) -> Message:
    return Message(message.content, reply_to=message)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raises", "the matcher failed: OSError: the disk is full"),
        ("unreadable", "the matcher's reply cannot be read: it has no record 'outcome'"),
        ("silent", "the matcher did not reply"),
        ("absent", "no node is the matcher at the moment"),
    ],
)
def test_a_run_whose_matcher_does_not_work_is_one_without_expansion_and_says_so(
    kind: str,
    reason: str,
    without: Outcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle, pull, ids = InlineGrid._handle, InlineGrid.pull_messages, InlineGrid.get_node_ids
    asked: dict[str, int] = {}

    def handling(self: InlineGrid, message: Message) -> Message:
        asked[domain_of(message)] = asked.get(domain_of(message), 0) + 1
        if domain_of(message) != "query.match" or kind == "silent":
            return handle(self, message)
        reply = raises(self, message) if kind == "raises" else unreadable(self, message)
        reply.metadata.__dict__["_src_node_id"] = 2
        return reply

    def pulling(self: InlineGrid, message_ids: Any) -> Any:
        return [r for r in pull(self, message_ids) if kind != "silent" or not of_the_matcher(r)]

    def of_the_matcher(reply: Message) -> bool:
        return reply.metadata.message_type == "query.ask" and reply.metadata.src_node_id == 2

    def node_ids(self: Grid) -> Iterator[int]:
        """The matcher leaves as soon as training has begun."""
        return [node for node in ids(self) if node != 2 or kind != "absent" or "left" not in asked]  # type: ignore

    monkeypatch.setattr(InlineGrid, "_handle", handling)
    monkeypatch.setattr(InlineGrid, "pull_messages", pulling)
    monkeypatch.setattr(InlineGrid, "get_node_ids", node_ids)
    if kind == "absent":
        load_state = FedGNN.__init__

        def starting(self: FedGNN, *given: Any) -> None:
            load_state(self, *given)
            asked["left"] = 1

        monkeypatch.setattr(FedGNN, "__init__", starting)
    found = run_inline(tmp_path / "run", *SHORT, "federation.round_timeout=0.2")
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [f"round {r} goes on without an expansion of graphs: {reason}" for r in (1, 2)]
    assert asked.get("query.neighbours", 0) == 0 and asked.get("query.match", 0) == (0 if kind == "absent" else 2)
    assert found.summary["status"] == "completed"
    for mine, others in zip(found.rounds, without.rounds, strict=True):
        names = mine["clients"].keys() & {"validation", "test", "train_loss"}
        assert len(names) == mine["round"] * 2 - 1  # the losses, and in the last round all three
        for name in names:
            assert mine["clients"][name] == others["clients"][name]
