"""The matcher as a node: what it must know again in whichever process its next message finds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.node.matcher import BOX, MATCH, FolderMemory, MatcherNode, expansion_context
from subfl_flower.node.open_nodes import forget_nodes, open_clients, open_node
from subfl_flower.privacy.expansion import MatchBounds, opened_neighbours, sealed_request
from subfl_flower.privacy.tokens import item_tokens
from subfl_flower.wire.batch import Question

OVERRIDES = ["method=fedgnn", "model.dim=2", "method.max_neighbours=1"]
TWICE = "a sealed box was sent a second time"


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    forget_nodes()
    yield
    forget_nodes()


def run(run_id: str = "a1") -> ConfigRecord:
    config, _ = composed_config(OVERRIDES)
    return ConfigRecord({"config": json.dumps(config.plain()), "id": run_id, "directory": "x"})


def arrived(state: RecordDict) -> Context:
    """A message's context in a simulation of two nodes and a matcher: a copy of the state that the last one left."""
    copy = recorddict_from_proto(recorddict_to_proto(state))
    return Context(run_id=1, node_id=3, node_config={"partition-id": 2, "num-partitions": 3}, state=copy, run_config={})


def matcher(context: Context, run_id: str = "a1") -> MatcherNode:
    node = open_node(run(run_id), context)
    assert isinstance(node, MatcherNode)
    return node


def sealed(public: bytes, user: int, run_id: str = "a1", server_round: int = 4) -> tuple[bytes, bytes]:
    """The box of a user that has the items `user` and 9, and the key of its answer."""
    tokens = item_tokens(np.array([user, 9]), b"k" * 32, run_id.encode())
    embedding = np.array([user, 0.5], np.float32)
    return sealed_request(tokens, embedding, public, expansion_context(run_id, server_round))


def question(boxes: dict[int, bytes], server_round: int = 4) -> Question:
    received = {number: {BOX: np.frombuffer(box, np.uint8)} for number, box in boxes.items()}
    return Question(MATCH, received, server_round)


def test_users_are_told_of_each_other_under_their_numbers() -> None:
    node = matcher(arrived(RecordDict()))
    public = node.roster()["public_key"]
    assert isinstance(public, bytes)
    keys = {}
    boxes = {}
    for number, user in ((7, 1), (3, 2)):
        boxes[number], keys[number] = sealed(public, user)
    boxes[5] = b"none"
    answers = node.answer(question(boxes))
    assert sorted(answers.arrays) == [3, 7] and list(answers.failures) == [5]
    for number, other in ((7, 2), (3, 1)):
        told = opened_neighbours(answers.arrays[number][BOX].tobytes(), keys[number], expansion_context("a1", 4), 2)
        np.testing.assert_array_equal(told, [[other, 0.5]])


def test_a_matcher_hosts_nobody_and_answers_nothing_else() -> None:
    with pytest.raises(SubflError, match=r"^this node is the matcher; it hosts no clients$"):
        open_clients(run(), arrived(RecordDict()))
    with pytest.raises(SubflError, match=r"^the matcher has no answer to query\.expand$"):
        matcher(arrived(RecordDict())).answer(Question("expand", {}))


def test_what_it_knows_is_in_the_state_that_goes_on_with_each_message() -> None:
    """Ray hands each message to any of its processes, with a copy of the state that the last message left."""
    first = arrived(RecordDict())
    public = matcher(first).roster()["public_key"]
    assert isinstance(public, bytes)
    box, _ = sealed(public, 1)
    second = arrived(first.state)  # in the process that had the first one
    assert matcher(second).answer(question({0: box})).failures == {}
    forget_nodes()  # in another process
    third = arrived(second.state)
    assert matcher(third).roster()["public_key"] == public
    assert matcher(third).answer(question({0: box})).failures == {0: TWICE}


def test_a_folder_keeps_the_key_and_the_boxes_of_each_run(tmp_path: Path) -> None:
    config, _ = composed_config(OVERRIDES)

    def node(run_id: str) -> MatcherNode:
        return MatcherNode(config, run_id, FolderMemory(tmp_path / "matcher", run_id))

    public = node("a1").roster()["public_key"]
    assert isinstance(public, bytes) and node("b2").roster()["public_key"] == public
    box, _ = sealed(public, 1)
    changed = "a sealed box was changed on its way, or is not of this key, round or run"
    assert node("a1").answer(question({0: box}, server_round=5)).failures == {0: changed}
    assert node("b2").answer(question({0: box})).failures == {0: changed}
    assert node("a1").answer(question({0: box})).failures == {}
    assert node("a1").answer(question({0: box})).failures == {0: TWICE}
    another, _ = sealed(public, 1, "b2")
    assert node("b2").answer(question({0: another})).failures == {}
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    of_runs = [f"matcher/runs/{run_id}/{name}" for run_id in ("a1", "b2") for name in ("answered.json", "opened.keys")]
    assert files == ["matcher/matcher.key", *of_runs]
    assert all((tmp_path / file).stat().st_mode & 0o077 == 0 for file in files)
    assert (tmp_path / files[2]).read_bytes() == box[:32] and (tmp_path / files[1]).read_text() == '{"4": 1}'


@pytest.mark.parametrize(
    ("said", "sentence"), [({}, "1 users ask, and the matcher answers 5"), ({"least-users": 1}, "")]
)
def test_attack_a_deployed_matcher_is_asked_for_a_single_user(
    said: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    """Its operator sets the bounds; the server's configuration has none."""
    config, _ = composed_config([*OVERRIDES, "runtime=deploy", "schema.items=12"])
    record = ConfigRecord({"config": json.dumps(config.plain()), "id": "a1", "directory": ""})
    here: Any = {"role": "matcher", "state": str(tmp_path / "matcher"), **said}
    context = Context(run_id=1, node_id=3, node_config=here, state=RecordDict(), run_config={})
    node = open_node(record, context)
    assert isinstance(node, MatcherNode)
    public = node.roster()["public_key"]
    assert isinstance(public, bytes)
    refused = node.answer(question({0: sealed(public, 1)[0]})).failures
    assert list(refused.values()) == ([f"{sentence} together or more"] if sentence else [])


def test_attack_a_round_is_asked_for_in_many_batches(tmp_path: Path) -> None:
    """The number of answered requests is remembered by round, in whichever process the next batch finds the matcher."""
    config, _ = composed_config(OVERRIDES)

    def node() -> MatcherNode:
        return MatcherNode(config, "a1", FolderMemory(tmp_path / "matcher", "a1"), MatchBounds(most_requests=2))

    public = node().roster()["public_key"]
    assert isinstance(public, bytes)
    for user in (1, 2):
        assert node().answer(question({0: sealed(public, user)[0]})).failures == {}
    sentence = "3 requests in a round, where 2 are answered at most"
    assert node().answer(question({0: sealed(public, 3)[0]})).failures == {0: sentence}
    another = question({0: sealed(public, 3, server_round=5)[0]}, server_round=5)
    assert node().answer(another).failures == {}


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "matcher.key").write_bytes(b"short")
    with pytest.raises(SubflError, match=r"matcher\.key holds 5 bytes"):
        FolderMemory(tmp_path, "a1").key()
    (tmp_path / "runs" / "a1" / "opened.keys").mkdir(parents=True)
    with pytest.raises(SubflError, match=r"opened\.keys cannot be read: Is a directory$"):
        FolderMemory(tmp_path, "a1").opened()
    (tmp_path / "runs" / "b2").write_bytes(b"")
    with pytest.raises(SubflError, match=r"opened\.keys cannot be written: "):
        FolderMemory(tmp_path, "b2").remember(b"x" * 32)


def test_a_method_without_expansion_has_no_use_for_a_matcher(tmp_path: Path) -> None:
    config, _ = composed_config(["method=fedavg", "dataset=digits"])
    with pytest.raises(SubflError, match=r"^method=fedavg has no use for a matcher$"):
        MatcherNode(config, "a1", FolderMemory(tmp_path, "a1"))
