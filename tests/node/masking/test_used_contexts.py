"""A client makes the masks of a context once, whatever round a server says it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import RecordDict

from subfl_flower.errors import SubflError
from subfl_flower.node.kept_arrays import KeptArrays, KeptInContext, KeptInFiles, KeptInMemory
from subfl_flower.node.masking.used_contexts import claim


@pytest.fixture(params=["memory", "context", "files"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> KeptArrays:
    if request.param == "memory":
        return KeptInMemory()
    return KeptInContext(RecordDict()) if request.param == "context" else KeptInFiles(lambda client: tmp_path)


def test_a_context_is_used_once_by_each_client(kept: KeptArrays) -> None:
    claim(kept, [1], b"round 1")
    claim(kept, [1], b"round 2")
    claim(kept, [2], b"round 1")
    for context in (b"round 1", b"round 2"):
        with pytest.raises(SubflError, match="client 1 has made these masks before, for another upload"):
            claim(kept, [1], context)


def test_where_one_client_is_refused_nothing_is_remembered_of_the_others(kept: KeptArrays) -> None:
    claim(kept, [2], b"round 1")
    with pytest.raises(SubflError, match="client 2 has made these masks before"):
        claim(kept, [1, 2, 3], b"round 1")
    claim(kept, [1, 3], b"round 1")


def test_the_same_question_may_be_answered_again_and_no_other(kept: KeptArrays) -> None:
    claim(kept, [1], b"attempt 0", b"all nodes")
    claim(kept, [1], b"attempt 0", b"all nodes")
    for question in (b"all but one", b"", None):
        with pytest.raises(SubflError, match="client 1 has made these masks before"):
            claim(kept, [1], b"attempt 0", question)


def test_attack_the_server_names_an_earlier_round_to_have_a_client_forget(tmp_path: Path) -> None:
    """State and kept arrays go back with a federation that resumes; this memory does not."""

    def at(server_round: int) -> KeptInFiles:
        return KeptInFiles(lambda client: tmp_path, now=server_round, checkpoint=server_round - 1)

    claim(at(5), [1], b"masks of round 5")
    claim(at(9), [1], b"masks of round 9")
    for server_round in (9, 5, 1):
        with pytest.raises(SubflError, match="has made these masks before"):
            claim(at(server_round), [1], b"masks of round 9")
    claim(at(1), [1], b"others")
    with pytest.raises(SubflError, match="has made these masks before"):
        claim(at(2), [1], b"masks of round 5")
