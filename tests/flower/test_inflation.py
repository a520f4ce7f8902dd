"""Replies that nodes make of Flower's objects, unpacked by Flower's own grid; only its transport is replaced."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.superlink.grid import http_grid
from flwr.superlink.grid.http_grid import HttpGrid

from subfl_flower.flower.inflation import bound_inflation

CHUNK = 1000


def plain() -> Array:
    return Array("uint8", (CHUNK,), "numpy.ndarray", b"x" * CHUNK)


@pytest.fixture(autouse=True)
def identity(task_identity: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # An earlier run of this process may have bound it already.
    own = inspect.unwrap(http_grid.inflate_object_from_contents)
    monkeypatch.setattr(http_grid, "inflate_object_from_contents", own)
    yield


def reply(*times: int) -> Message:
    """Arrays that refer to one chunk so many times each."""
    asked = Message(RecordDict(), 3, "train")
    asked.metadata.__dict__["_message_id"] = "a" * 64
    arrays = ArrayRecord({f"w{place}": plain() for place in range(len(times))})
    for array, count in zip(arrays.values(), times, strict=True):
        array.__dict__["_chunks"] = array.slice_array() * count  # which are sent as they are
    answer = Message(RecordDict({"arrays": arrays, "said": ConfigRecord({"n": 1})}), reply_to=asked)
    answer.metadata.__dict__["_message_id"] = answer.object_id
    return answer


def grid_with(message: Message, contents: dict[str, bytes] | None = None, root: str | None = None) -> HttpGrid:
    """A grid whose SuperLink has one reply, of the objects of `message` unless others are given."""
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    objects |= contents or {}
    tree = get_object_tree(message)
    if contents is not None:
        tree = ObjectTree(object_id=root or message.object_id, children=[ObjectTree(object_id=key) for key in contents])
    proto = message_to_proto(Message(RecordDict(), reply_to=Message(RecordDict(), 3, "train")))
    proto.metadata.message_id = root or message.metadata.message_id
    grid = HttpGrid(token="t")
    grid._run = SimpleNamespace(run_id=1)  # type: ignore[assignment]
    grid._client = SimpleNamespace(  # type: ignore[assignment]
        PullMessages=lambda request: SimpleNamespace(messages_list=[proto], message_object_trees=[tree]),
        PullObject=lambda request: SimpleNamespace(
            object_found=True, object_available=True, object_content=objects[request.object_id]
        ),
        ConfirmMessageReceived=lambda request: None,
    )
    return grid


def pulled(grid: HttpGrid, most_repeated: int = 20 * CHUNK) -> Message:
    bound_inflation(grid, most_repeated)
    [message] = grid.pull_messages(["a" * 64])
    return message


def test_attack_references_to_one_chunk_unpack_to_more_than_arrived() -> None:
    found = pulled(grid_with(reply(100_000)))
    assert found.metadata.reply_to_message_id == "a" * 64 and found.metadata.src_node_id == 3
    assert "its node's reply is refused: its arrays repeat" in found.error.reason


def test_attack_arrays_share_chunks_that_unpack_to_more_than_arrived() -> None:
    """No array alone takes too much."""
    assert "its arrays repeat" in pulled(grid_with(reply(*range(10, 19)))).error.reason


def test_chunks_may_be_alike() -> None:
    found = pulled(grid_with(reply(8, 12)))
    assert [len(array.data) for array in found.content.array_records["arrays"].values()] == [8 * CHUNK, 12 * CHUNK]


def test_attack_objects_that_contradict_each_other_do_not_end_the_run() -> None:
    whole = reply(1)
    objects = {key: value.deflate() for key, value in get_all_nested_objects(whole).items()}
    for key, content in objects.items():
        rest = {other: text for other, text in objects.items() if other != key}
        if b"Message " in content[:8]:
            continue
        assert "its node's reply is refused" in pulled(grid_with(whole, rest)).error.reason  # one is missing
        changed = content[:-2] + b"]]"
        found = pulled(grid_with(whole, {**objects, key: changed}))
        assert b"ArrayChunk" in content or "its node's reply is refused" in found.error.reason
        assert "its node's reply is refused" in pulled(grid_with(whole, objects, root=key)).error.reason  # no message
