"""Orders that a site must not carry out: of other hands, changed, repeated, for others, of an earlier attempt."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from signed_messages import BUNDLE, NODE, Gated, Operator, delivered, site, unsigned

from subfl_flower.errors import SubflError
from subfl_flower.flower.signing_grid import SigningGrid
from subfl_flower.server import round_messages
from subfl_flower.trust.attempts import open_attempt
from subfl_flower.trust.gate import Arrival, Gate
from subfl_flower.trust.operator_key import fingerprint, raw
from subfl_flower.trust.orders import ORDER, RUN, sign


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    """Flower's messages need a run."""
    with Gated(ClientApp(), {NODE: None}).active():  # type: ignore[dict-item]
        yield


@pytest.fixture
def operator() -> Operator:
    return Operator()


@pytest.fixture
def gate(operator: Operator, tmp_path: Path) -> Gate:
    return site(tmp_path, operator.public)


def admit(gate: Gate, message: Message, node: int = NODE) -> None:
    gate.admit(Arrival(message, node, BUNDLE))


def refused(gate: Gate, message: Message, reason: str, node: int = NODE) -> None:
    with pytest.raises(SubflError, match=reason):
        admit(gate, message, node)


def test_signed_orders_pass_and_their_signature_goes_no_further(gate: Gate, operator: Operator) -> None:
    for kind in ("query.roster", "train", "query.ask", "query.export"):
        message = operator.order(kind)
        admit(gate, message)
        assert set(message.content) == {RUN, "arrays", "figures"}
    assert RUN == round_messages.RUN


# Other hands ----------------------------------------------------------------------------------------------------------


def test_attack_of_a_node_that_pushes_a_message_to_another_node(gate: Gate, operator: Operator) -> None:
    forged = unsigned("train", NODE, {**operator.about, "round": 1})
    refused(gate, delivered(forged), r"carries out signed orders alone, and a message of type train came without sig")
    other = Operator()
    named = re.escape(fingerprint(bytes.fromhex(other.public)))
    refused(gate, other.order(), rf"signed with a key \({named}\) that this site has not pinned")


def test_attack_with_the_operators_name_on_another_keys_signature(gate: Gate, operator: Operator) -> None:
    forged = Operator().order()
    forged.content.config_records[ORDER]["key"] = bytes.fromhex(operator.public)
    refused(gate, forged, r"the operator has not signed this message of type train for this node: it was changed, or")


@pytest.mark.parametrize("entry", ["number", "key", "signature"])
@pytest.mark.parametrize("value", ["text", b"", -1, [1], None])
def test_attack_with_a_malformed_signature(gate: Gate, operator: Operator, entry: str, value: object) -> None:
    message = operator.order()
    order = message.content.config_records[ORDER]
    if value is None:
        del order[entry]
    else:
        order[entry] = value  # type: ignore[assignment]
    with pytest.raises(SubflError):
        admit(gate, message)


# Changed messages -----------------------------------------------------------------------------------------------------


def an_arrays_byte(content: RecordDict) -> None:
    array = content.array_records["arrays"]["w"]
    array.data = array.data[:-1] + bytes([array.data[-1] ^ 1])


def an_arrays_shape(content: RecordDict) -> None:
    content.array_records["arrays"]["w"].shape = (3, 2)


def an_arrays_type(content: RecordDict) -> None:
    content.array_records["arrays"]["w"].dtype = "int32"


def an_arrays_name(content: RecordDict) -> None:
    record = content.array_records["arrays"]
    content["arrays"] = ArrayRecord({"w": record["b"], "b": record["w"]})


def a_further_array(content: RecordDict) -> None:
    content.array_records["arrays"]["more"] = Array(np.ones(1))


def a_missing_array(content: RecordDict) -> None:
    del content.array_records["arrays"]["b"]


def a_further_record(content: RecordDict) -> None:
    content["bundle"] = ConfigRecord({"bytes": b"\0"})


def a_missing_record(content: RecordDict) -> None:
    del content["figures"]


def the_round(content: RecordDict) -> None:
    content.config_records[RUN]["round"] = 2


def the_attempt(content: RecordDict) -> None:
    content.config_records[RUN]["attempt"] = 2


def the_run(content: RecordDict) -> None:
    content.config_records[RUN]["id"] = "ab13"


def a_truth(content: RecordDict) -> None:
    content.config_records[RUN]["keep"] = 1


def the_clients(content: RecordDict) -> None:
    content.config_records[RUN]["clients"] = [0, 2, 2]


def two_words(content: RecordDict) -> None:
    content.config_records[RUN]["words"] = ["ab"]


def a_figure(content: RecordDict) -> None:
    content.metric_records["figures"]["loss"] = np.nextafter(0.5, 1).item()


def the_number(content: RecordDict) -> None:
    content.config_records[ORDER]["number"] = 99


CHANGES = [
    *(an_arrays_byte, an_arrays_shape, an_arrays_type, an_arrays_name, a_further_array, a_missing_array),
    *(a_further_record, a_missing_record, the_round, the_attempt, the_run, a_truth, the_clients, two_words),
    *(a_figure, the_number),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_attack_with_a_changed_message(gate: Gate, operator: Operator, change: Callable[[RecordDict], None]) -> None:
    sound = operator.order()
    changed = copy.deepcopy(sound)
    change(changed.content)
    refused(gate, changed, "the operator has not signed this message")
    admit(gate, sound)  # a refused message uses no number up


def test_attack_with_the_order_for_another_node_or_of_another_type(gate: Gate, operator: Operator) -> None:
    refused(gate, operator.order(node=2), "for this node: it was changed, or it is another's")
    message = operator.order("query.export")
    message.metadata.message_type = "train"
    refused(gate, message, "the operator has not signed this message of type train")
    message = operator.order()
    message.metadata.__dict__["_run_id"] = 7
    refused(gate, message, "the operator has not signed")


def test_a_run_without_a_sound_name_is_refused(gate: Gate, operator: Operator) -> None:
    for wrong in ({"id": "../up"}, {"id": ""}, {"attempt": "1"}, {"id": 5}):
        refused(gate, operator.order(**wrong), "names no run and attempt")


# Repeated messages ----------------------------------------------------------------------------------------------------


def test_attack_with_an_order_that_was_carried_out(operator: Operator, tmp_path: Path) -> None:
    first, second = operator.order(), operator.order(server_round=2)
    again = [copy.deepcopy(message) for message in (first, second)]
    admit(site(tmp_path, operator.public), first)
    admit(site(tmp_path, operator.public), second)
    later = site(tmp_path, operator.public)  # of another process, or after a restart
    for message, number in zip(again, (1, 2), strict=True):
        refused(later, message, rf"order {number} of run ab12 is refused: .* \(number 2 of attempt 1\)")
    refused(site(tmp_path, operator.public), again[1], "is refused")
    other = Operator(run_id="cd34", key=operator.key)
    admit(later, other.order())  # each run counts by itself


def test_attack_with_an_order_of_an_attempt_before_a_resume(operator: Operator, tmp_path: Path) -> None:
    held_back = [operator.order(server_round=number) for number in (1, 2, 3)]
    gate = site(tmp_path, operator.public)
    admit(gate, held_back[0])
    resumed = Operator(attempt=2, key=operator.key)
    admit(gate, resumed.order())
    refused(gate, held_back[2], "attempt 1 of run ab12 is refused: this site has heard attempt 2")
    admit(gate, resumed.order())


def test_each_start_and_resume_opens_a_higher_attempt(tmp_path: Path) -> None:
    assert [open_attempt(tmp_path / "checkpoint") for _ in range(3)] == [1, 2, 3]
    (tmp_path / "checkpoint" / "attempt.json").write_text('{"attempt": 41}')
    assert open_attempt(tmp_path / "checkpoint") == 42
    for wrong in ("", "{}", '{"attempt": "1"}', '{"attempt": -1}'):
        (tmp_path / "checkpoint" / "attempt.json").write_text(wrong)
        with pytest.raises(SubflError, match=r"attempt\.json is damaged .* the highest that a site has heard"):
            open_attempt(tmp_path / "checkpoint")


def test_damaged_records_refuse_all_orders_of_their_run(gate: Gate, operator: Operator, tmp_path: Path) -> None:
    admit(gate, operator.order())
    path = tmp_path / "orders" / "ab12.json"
    for wrong in ("", '{"attempt": 1}x', '{"attempt": -1}', '{"attempt": 1, "more": 2}', '{"attempt": 1.5}'):
        path.write_text(wrong)
        refused(gate, operator.order(), r"ab12\.json is damaged .* cannot tell which orders it has heard")
    admit(gate, Operator(run_id="cd34", key=operator.key).order())


# Change of the key ----------------------------------------------------------------------------------------------------


def test_two_keys_are_pinned_while_the_operator_changes_its_key(operator: Operator, tmp_path: Path) -> None:
    new = Operator(run_id="cd34")
    both = site(tmp_path, operator.public, new.public)
    admit(both, operator.order())
    admit(both, new.order())
    after = site(tmp_path, new.public)
    refused(after, operator.order(), "has not pinned")
    admit(after, new.order())


# The server's side ----------------------------------------------------------------------------------------------------


def test_a_signing_grid_numbers_all_messages_and_changes_nothing_else(tmp_path: Path) -> None:
    app, key = ClientApp(), Ed25519PrivateKey.generate()

    @app.train()
    def train(message: Message, context: object) -> Message:
        return Message(RecordDict({"seen": ConfigRecord({"records": sorted(message.content)})}), reply_to=message)

    gates = {node: site(tmp_path / str(node), raw(key.public_key()).hex()) for node in (1, 2)}
    inner = Gated(app, gates)
    grid = SigningGrid(inner, lambda message, number: sign(message, key, number))
    about = {"id": "ab12", "attempt": 1, "round": 1, "config": "{}"}
    for _ in range(2):
        replies = list(grid.send_and_receive([unsigned("train", node, about) for node in (1, 2)]))
        assert [reply.content.config_records["seen"]["records"] for reply in replies] == [
            ["arrays", "figures", "run"]
        ] * 2
    assert [message.content.config_records[ORDER]["number"] for message in inner.passed] == [1, 2, 3, 4]
    stolen = copy.deepcopy(inner.passed[2])
    (reply,) = inner.send_and_receive([stolen])
    assert reply.has_error() and "is refused" in str(reply.error.reason)
    assert list(grid.get_node_ids()) == [1, 2]
