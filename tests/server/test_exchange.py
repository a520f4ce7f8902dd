from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from subfl_flower.errors import RunFailure
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server.exchange import ASK, PHASE, Exchange, answer_record
from subfl_flower.server.round_messages import RUN
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers
from subfl_flower.wire.payload import ARRAYS
from subfl_flower.wire.replies import OUTCOME
from subfl_flower.wire.roster import Roster

CLIENTS = (10, 11, 12, 13, 14)
NODES = (2, 1, 2, 3, 1)
"""The node of each client."""


def roster(nodes: Sequence[int] = NODES) -> Roster:
    return Roster(CLIENTS, tuple(nodes), np.ones(5), np.ones(5), np.ones(5), 1, 2, False)


def answer(client: int) -> Stack:
    """Client 10 + p answers with p numbers and their p x 2 squares: 4p + 16p bytes."""
    numbers = np.arange(client - 10, dtype=np.int32) + client
    return {"numbers": numbers, "squares": np.stack([numbers, numbers**2], axis=1).astype(np.float64)}


def client_app(
    failing: Sequence[int] = (), spoil: Callable[[Message], None] | None = None, spoilt: int = 0
) -> ClientApp:
    """Clients that answer; those `failing` do not, and `spoil` has its way with the reply of the node `spoilt`."""
    app = ClientApp()

    @app.query(ASK)
    def count(message: Message, context: Context) -> Message:
        run = message.content.config_records[RUN]
        assert (run["directory"], run[PHASE]) == ("x", "count")
        clients = [int(client) for client in run["clients"]]  # type: ignore[union-attr]
        answers = {client: answer(client) for client in clients if client not in failing}
        failures = {client: f"client {client} is tired" for client in clients if client in failing}
        reply = Message(answer_record(Answers(answers, failures)), reply_to=message)
        if spoil and context.node_id == spoilt:
            spoil(reply)
        return reply

    return app


def numbers_of(stack: Stack) -> list[int]:
    assert (stack["squares"][:, 1] == stack["numbers"].astype(float) ** 2).all()
    found: list[int] = stack["numbers"].tolist()
    return found


def ask(
    app: ClientApp,
    *,
    nodes: Sequence[int] = NODES,
    tolerant: bool = False,
    decode: Callable[[Stack], list[int]] = numbers_of,
    lose: Sequence[int] = (),
    change: Callable[[list[Message]], list[Message]] = list,
    largest: Sequence[int] | None = None,
) -> tuple[list[list[int] | None], Exchange]:
    """One phase; replies of the nodes `lose` do not arrive, and `change` has its way with the rest."""
    grid = InlineGrid(app, 3)
    pull = grid.pull_messages
    grid.pull_messages = lambda ids: change(  # type: ignore[method-assign]
        [reply for reply in pull(ids) if reply.metadata.src_node_id not in lose]
    )
    exchange = Exchange(grid, ConfigRecord({"directory": "x"}), roster(nodes), tolerant, timeout=0)
    with grid.active():
        return exchange.ask("count", decode, largest), exchange


EVERYONES = [[], [11], [12, 13], [13, 14, 15], [14, 15, 16, 17]]


@pytest.mark.parametrize("nodes", [NODES, (1, 1, 1, 1, 1), (3, 2, 1, 2, 3)], ids=str)
def test_answers_are_by_position_whatever_the_placement_and_may_differ_in_size(nodes: tuple[int, ...]) -> None:
    answers, exchange = ask(client_app(), nodes=nodes)
    assert answers == EVERYONES
    (phase,) = exchange.log
    assert phase.pop("seconds") >= 0
    assert phase == {"action": "count", "round": 1, "bytes_up": 20 * (0 + 1 + 2 + 3 + 4), "bytes_down": 0}


def test_every_node_is_asked_once_for_its_own_clients() -> None:
    asked: dict[int, list[list[int]]] = {1: [], 2: [], 3: []}
    sound, app = client_app(), ClientApp()

    @app.query(ASK)
    def count(message: Message, context: Context) -> Message:
        asked[context.node_id].append(list(message.content.config_records[RUN]["clients"]))  # type: ignore[arg-type]
        return sound(message, context)

    ask(app)
    assert asked == {1: [[11, 14]], 2: [[10, 12]], 3: [[13]]}


def test_every_phase_is_in_the_log() -> None:
    app = client_app()
    with InlineGrid(app, 3).active() as grid:
        exchange = Exchange(grid, ConfigRecord({"directory": "x"}), roster(), tolerant=False)
        assert exchange.ask("count", numbers_of) == exchange.ask("count", numbers_of) == EVERYONES
    assert [(phase["action"], phase["bytes_up"]) for phase in exchange.log] == [("count", 200)] * 2


def test_arrays_arrive_as_they_were_whatever_their_layout_and_names() -> None:
    sent: Stack = {
        "of/slash": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "every": np.arange(9, dtype=np.float32)[::4],
        "nothing": np.empty((0, 16), dtype=np.uint8),
        "one": np.array(2.5),
    }
    app, received = ClientApp(), []

    @app.query(ASK)
    def count(message: Message, context: Context) -> Message:
        clients = message.content.config_records[RUN]["clients"]
        return Message(answer_record(Answers({int(c): sent for c in clients})), reply_to=message)  # type: ignore[union-attr]

    def keep(stack: Stack) -> list[int]:
        received.append(stack)
        return []

    ask(app, decode=keep)
    assert len(received) == 5
    for stack in received:
        assert stack.keys() == sent.keys()
        for name, values in stack.items():
            assert values.dtype == sent[name].dtype
            np.testing.assert_array_equal(values, sent[name])


def test_a_failure_is_reported_by_client_and_reason_or_tolerated() -> None:
    with pytest.raises(RunFailure, match=r"^client 12 failed in query\.count: client 12 is tired$"):
        ask(client_app(failing=[14, 12]))
    answers, exchange = ask(client_app(failing=[14, 12]), tolerant=True)
    assert answers == [[], [11], None, [13, 14, 15], None]
    assert exchange.log[0]["bytes_up"] == 20 * (0 + 1 + 3)


def test_a_node_that_raises_fails_for_its_clients_alone() -> None:
    def spoil(reply: Message) -> None:
        raise OSError("the disk is full")

    with pytest.raises(RunFailure, match=r"^client 11 failed in query\.count: OSError: the disk is full$"):
        ask(client_app(spoil=spoil, spoilt=1))
    answers, _ = ask(client_app(spoil=spoil, spoilt=1), tolerant=True)
    assert answers == [[], None, [12, 13], [13, 14, 15], None]


def test_a_node_that_knows_no_questions_says_so() -> None:
    with pytest.raises(RunFailure, match=r"^client 10 failed in query\.count: .*No query function .*ask"):
        ask(ClientApp())


def test_a_node_that_is_silent_fails_for_its_clients() -> None:
    with pytest.raises(RunFailure, match=r"^client 10 failed in query\.count: no reply$"):
        ask(client_app(), lose=[2])
    answers, _ = ask(client_app(), lose=[2], tolerant=True)
    assert answers == [None, [11], None, [13, 14, 15], [14, 15, 16, 17]]


def without_arrays(reply: Message) -> None:
    del reply.content[ARRAYS]


def without_outcome(reply: Message) -> None:
    del reply.content[OUTCOME]


def without_clients(reply: Message) -> None:
    del reply.content.config_records[OUTCOME]["clients"]


def of_nobody(reply: Message) -> None:
    """Arrays of a client that is not among those that answer."""
    arrays = answer_record(Answers({99: answer(14)})).array_records[ARRAYS]
    reply.content[ARRAYS] = ArrayRecord({**reply.content.array_records[ARRAYS], **arrays})


def unnamed(reply: Message) -> None:
    record = reply.content.array_records[ARRAYS]
    reply.content[ARRAYS] = ArrayRecord({name.replace("/", "-"): array for name, array in record.items()})


def foreign(reply: Message) -> None:
    reply.content.update(answer_record(Answers({11: answer(11), 14: answer(14), 13: answer(10)})))


def torn(reply: Message) -> None:
    array = reply.content.array_records[ARRAYS]["14/numbers"]
    array.data = array.data[:-3]


def of_objects(reply: Message) -> None:
    array = reply.content.array_records[ARRAYS]["14/numbers"]
    array.data = array.data.replace(b"<i4", b"|O ")


def clients_are_a_number(reply: Message) -> None:
    reply.content.config_records[OUTCOME]["clients"] = 3


def reasons_are_no_json(reply: Message) -> None:
    reply.content.config_records[OUTCOME]["failures"] = "{"


def reasons_are_a_list(reply: Message) -> None:
    reply.content.config_records[OUTCOME]["failures"] = json.dumps(["tired"])


@pytest.mark.parametrize(
    "spoil",
    [
        without_arrays,
        without_outcome,
        without_clients,
        of_nobody,
        unnamed,
        foreign,
        clients_are_a_number,
        reasons_are_no_json,
        reasons_are_a_list,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_a_reply_that_cannot_be_read_is_the_failure_of_its_nodes_clients(spoil: Callable[[Message], None]) -> None:
    with pytest.raises(RunFailure, match=r"^client 11 failed in query\.count: its node's reply cannot be read: "):
        ask(client_app(spoil=spoil, spoilt=1))
    answers, exchange = ask(client_app(spoil=spoil, spoilt=1), tolerant=True)
    assert answers == [[], None, [12, 13], [13, 14, 15], None]
    assert exchange.log[0]["bytes_up"] == 20 * (0 + 2 + 3)


def test_a_node_cannot_answer_for_the_clients_of_another() -> None:
    with pytest.raises(RunFailure, match=r"client 11 .*: it answers for client 13, which it was not asked for$"):
        ask(client_app(spoil=foreign, spoilt=1))


@pytest.mark.parametrize("spoil", [torn, of_objects], ids=lambda spoil: spoil.__name__)
def test_an_array_that_cannot_be_read_is_its_clients_failure_alone(spoil: Callable[[Message], None]) -> None:
    with pytest.raises(RunFailure, match=r"^client 14 failed in query\.count: its answer cannot be used: an array "):
        ask(client_app(spoil=spoil, spoilt=1))
    answers, _ = ask(client_app(spoil=spoil, spoilt=1), tolerant=True)
    assert answers == [*EVERYONES[:4], None]


def test_an_answer_that_is_too_large_is_not_read() -> None:
    # Client 13 sends 3 and 3 x 2 numbers: 12 and 48 bytes, each after a header of 128.
    answers, _ = ask(client_app(), largest=[2**20, 2**20, 2**20, 12 + 48 + 256, 12 + 48 + 256], tolerant=True)
    assert answers == [*EVERYONES[:4], None]
    with pytest.raises(RunFailure, match=r"client 13 .*: it has 316 bytes, and may have 315$"):
        ask(client_app(), largest=[2**20, 2**20, 2**20, 315, 2**20])


def test_second_replies_and_those_of_nodes_that_were_not_asked_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    def again(replies: list[Message]) -> list[Message]:
        of_node = {reply.metadata.src_node_id: reply for reply in replies}
        stranger = copy.deepcopy(of_node[1])
        stranger.metadata.__dict__["_src_node_id"] = 9
        return [*replies, of_node[2], stranger]

    with caplog.at_level("WARNING", logger="flwr"):
        answers, exchange = ask(client_app(), change=again)
    assert answers == EVERYONES and exchange.log[0]["bytes_up"] == 200
    assert [record.args for record in caplog.records] == [(2,), (9,)]


def test_a_client_that_its_node_says_nothing_of_has_failed() -> None:
    def spoil(reply: Message) -> None:
        reply.content.update(answer_record(Answers({11: answer(11)})))

    with pytest.raises(RunFailure, match=r"^client 14 failed in query\.count: it is missing in its node's reply$"):
        ask(client_app(spoil=spoil, spoilt=1))


def test_an_answer_that_cannot_be_decoded_is_its_clients_failure() -> None:
    def even(stack: Stack) -> list[int]:
        if len(stack["numbers"]) % 2:
            raise ValueError("it holds an odd number")
        return numbers_of(stack)

    with pytest.raises(RunFailure, match=r"^client 11 .*: its answer cannot be used: it holds an odd number$"):
        ask(client_app(), decode=even)
    answers, exchange = ask(client_app(), decode=even, tolerant=True)
    assert answers == [[], None, [12, 13], None, [14, 15, 16, 17]]
    assert exchange.log[0]["bytes_up"] == 200  # it has arrived, whatever it is worth


def test_an_answer_that_lacks_an_array_is_its_clients_failure() -> None:
    with pytest.raises(RunFailure, match=r"^client 10 .*: its answer cannot be used: .*cubes"):
        ask(client_app(), decode=lambda stack: stack["cubes"].tolist())


def test_a_programming_error_of_the_server_is_not_a_clients_failure() -> None:
    def broken(stack: Stack) -> list[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(client_app(), decode=broken, tolerant=True)
