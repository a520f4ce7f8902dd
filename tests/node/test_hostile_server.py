"""A server that sends a node what it must not gets an error in words, and the node works on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from subfl_flower.client_app import app
from subfl_flower.composition import composed_config
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.node.open_nodes import forget_nodes, open_node
from subfl_flower.server.exchange import ASK, PHASE
from subfl_flower.server.round_messages import RUN
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.payload import ARRAYS, LAYOUT, pack, unpack
from subfl_flower.wire.ragged import Ragged, pack_ragged
from subfl_flower.wire.replies import METRICS, OUTCOME

OVERRIDES = ("dataset=digits", "method=subpfed", "model.hidden=4", "federation.local_epochs=1", "method.psi=0.5")
CLIENTS = [0, 2, 5]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    try:
        with InlineGrid(app, 1).active() as grid:
            yield Node(grid, tmp_path)
    finally:
        forget_nodes()


class Node:
    """The only node of a run, and what an honest server sends it."""

    def __init__(self, grid: InlineGrid, folder: Path) -> None:
        self._grid = grid
        config, _ = composed_config([*OVERRIDES, *BY_NUMBERS])
        about = {"config": json.dumps(config.plain()), "id": "ab12", "directory": str(folder)}
        self.run = ConfigRecord({**about, "round": 1, "clients": CLIENTS})
        context = next(iter(grid._contexts.values()))
        self.model: Stack = dict(open_node(self.run, context).client(self.run, context).run.initial)

    def content(self) -> RecordDict:
        """A sound message to train."""
        content = RecordDict({RUN: copy.deepcopy(self.run)})
        pack(Choice.for_all(self.model, len(CLIENTS))).into(content)
        return content

    def told(self, content: RecordDict, kind: str = "train") -> Message:
        (reply,) = self._grid.send_and_receive([Message(content, 1, kind)])
        return reply

    def reason(self, content: RecordDict, kind: str = "train") -> str:
        """The error that the node replies with."""
        reply = self.told(content, kind)
        assert reply.has_error() and reply.error.reason is not None
        return reply.error.reason


BY_NUMBERS = ("method.random_nodes=20", "method.random_probability=0.2")


def with_stack(content: RecordDict, model: Stack, **changes: np.ndarray) -> None:
    pack(Choice.for_all({**model, **changes}, len(CLIENTS))).into(content)


def of_another_shape(content: RecordDict, model: Stack) -> None:
    with_stack(content, model, **{"conv1.bias": np.zeros(5, np.float32)})


def of_another_type(content: RecordDict, model: Stack) -> None:
    with_stack(content, model, **{"conv1.bias": np.zeros(4, np.float64)})


def of_another_name(content: RecordDict, model: Stack) -> None:
    others = {name.replace("conv2.", "conv3."): values for name, values in model.items()}
    pack(Choice.for_all(others, len(CLIENTS))).into(content)


def with_an_array_more(content: RecordDict, model: Stack) -> None:
    with_stack(content, model, masks=np.ones(3, np.float32))


def with_an_array_less(content: RecordDict, model: Stack) -> None:
    pack(Choice.for_all({n: v for n, v in model.items() if n != "conv1.bias"}, len(CLIENTS))).into(content)


def with_nothing(content: RecordDict, model: Stack) -> None:
    del content[ARRAYS]


def for_two_of_three(content: RecordDict, model: Stack) -> None:
    pack(Choice.for_all(model, 2)).into(content)


def with_rows(content: RecordDict, model: Stack) -> None:
    pack_ragged({"item_rows": Ragged(np.ones((3, 2), np.float32), np.ones(3, np.int64))}, content)


def torn(content: RecordDict, model: Stack) -> None:
    array = content.array_records[ARRAYS]["conv1.bias"]
    array.data = array.data[:-3]


def of_objects(content: RecordDict, model: Stack) -> None:
    record = content.array_records[ARRAYS]
    record["conv1.bias"] = Array("object", (1,), "numpy.ndarray", record["conv1.bias"].data.replace(b"<f4", b"|O "))


def a_bomb(content: RecordDict, model: Stack) -> None:
    content.config_records[LAYOUT]["conv1.weight.shape"] = [1, 10**7, 10**7]


WRONG: dict[Callable[[RecordDict, Stack], None], str] = {
    of_another_shape: "ValueError: its conv1.bias is float32 [5] for a client, where float32 [4] belongs",
    of_another_type: "ValueError: its conv1.bias is float64 [4] for a client, where float32 [4] belongs",
    of_another_name: "ValueError: it holds conv3.bias, conv3.weight, where only conv1.weight, conv1.bias, conv2",
    with_an_array_more: "ValueError: it holds masks, where only conv1.weight, conv1.bias, conv2",
    with_an_array_less: "ValueError: it lacks conv1.bias",
    with_nothing: "ValueError: the records lack 'arrays'",
    for_two_of_three: "ValueError: it holds 2 clients, not 3",
    with_rows: "ValueError: it holds the rows item_rows, where none belong",
    torn: "ValueError: an array ",
    of_objects: "ValueError: an array is not plain numbers",
    a_bomb: "ValueError: its conv1.weight is float32 [10000000, 10000000] for a client, where float32 [64, 4] belongs",
}


def trained(node: Node) -> Stack:
    """The uploads of a sound message to train, of which nobody fails."""
    reply = node.told(node.content())
    assert not reply.has_error()
    assert reply.content.config_records[OUTCOME]["clients"] == CLIENTS
    assert all(np.isfinite(values).all() for values in reply.content.metric_records[METRICS].values())
    return unpack(reply.content)[0]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The uploads where nobody sends anything wrong before."""
    try:
        with InlineGrid(app, 1).active() as grid:
            return trained(Node(grid, tmp_path_factory.mktemp("honest")))
    finally:
        forget_nodes()


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_arrays_that_are_not_as_declared_are_refused_in_words_and_the_node_works_on(
    node: Node, honest: Stack, spoil: Callable[[RecordDict, Stack], None], kind: str
) -> None:
    content = node.content()
    spoil(content, node.model)
    reason = node.reason(content, kind)
    assert reason.startswith(WRONG[spoil]) and "\n" not in reason
    found = trained(node)
    assert found.keys() == honest.keys()
    for name, values in honest.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_clients_that_it_does_not_host_are_refused_in_words(node: Node, honest: Stack) -> None:
    content = node.content()
    content.config_records[RUN]["clients"] = [0, 99, 5]
    for kind in ("train", "evaluate"):
        assert node.reason(content, kind) == "client 99 is not hosted here"
    assert trained(node).keys() == honest.keys()


def many_rows(node: Node, stored: int) -> RecordDict:
    """A message of some kilobytes that claims a model for each of many clients."""
    rows = {name: np.zeros((stored, *values.shape), np.float32) for name, values in node.model.items()}
    content = node.content()
    pack(Choice(rows, np.zeros((len(CLIENTS), 1), np.int64))).into(content)
    return content


@pytest.mark.parametrize("kind", ["train", "evaluate", "query.export"])
def test_more_models_than_it_has_clients_are_refused_before_they_are_unpacked(node: Node, kind: str) -> None:
    wrong = "ValueError: it holds 4 rows for 3 clients, and may hold 1 for each"
    assert node.reason(many_rows(node, 4), kind) == wrong
    repeated = many_rows(node, 3)
    repeated.config_records[RUN]["clients"] = [0, 2, 2]
    assert node.reason(repeated, kind) == "the server named a client twice in one message"
    assert not node.told(many_rows(node, 3), kind).has_error()


def test_a_model_to_write_that_is_not_as_declared_is_refused(node: Node) -> None:
    content = node.content()
    with_stack(content, node.model, **{"conv1.bias": np.zeros(10**6, np.float32)})
    assert node.reason(content, "query.export").startswith("ValueError: its conv1.bias is float32 [1000000] for a clie")
    content = node.content()
    pack({}, len(CLIENTS)).into(content)
    assert not node.told(content, "query.export").has_error()


# Questions ------------------------------------------------------------------------------------------------------------


def question(node: Node, phase: Any, **more: np.ndarray) -> RecordDict:
    content = RecordDict({RUN: ConfigRecord({**node.run, PHASE: phase})})
    if more:
        content[ARRAYS] = ArrayRecord({name.replace("_", "/"): Array(values) for name, values in more.items()})
    return content


@pytest.mark.parametrize("phase", ["neighbours", "train", "export", "answer_of", "", "structure "])
def test_a_phase_that_a_method_does_not_declare_is_refused_in_words(node: Node, phase: str) -> None:
    reason = node.reason(question(node, phase), f"query.{ASK}")
    assert reason == f"SubPFedClient has no answer to query.{phase}"
    reply = node.told(question(node, "structure"), f"query.{ASK}")
    assert reply.content.config_records[OUTCOME]["clients"] == CLIENTS
    assert reply.content.config_records[OUTCOME]["failures"] == "{}"


def test_a_question_with_arrays_of_nobody_that_is_asked_is_refused_in_words(node: Node) -> None:
    wrong = question(node, "structure", **{"7_x": np.ones(2)})
    assert node.reason(wrong, f"query.{ASK}") == (
        "ValueError: it holds an array 7/x, which is of no client that it answers for"
    )


def test_a_question_to_a_client_that_is_not_hosted_is_that_clients_failure(node: Node) -> None:
    content = question(node, "structure")
    content.config_records[RUN]["clients"] = [0, 99]
    reply = node.told(content, f"query.{ASK}")
    outcome = reply.content.config_records[OUTCOME]
    assert outcome["clients"] == [0]
    assert json.loads(str(outcome["failures"])) == {"99": "client 99 is not hosted here"}
