"""States of clients that are asked several things in a round, by processes each of which handles one message."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from subfl_flower.node.durable_store import DurableStore
from subfl_flower.node.state import MemoryStore

SHAPES: dict[str, tuple[int, ...]] = {"steps": ()}
ORDER = ("expand", "neighbours", "train", "evaluate")


class Client:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def handle(self, server_round: int, phase: str, value: float | None = None, checkpoint: int | None = None) -> float:
        """State that a message of a phase finds; it leaves `value`, if that is given."""
        last = server_round - 1 if checkpoint is None else checkpoint
        store = DurableStore(MemoryStore(), lambda client: self.folder, server_round, last, True, phase, ORDER)
        state = store.open((3,), SHAPES)
        found = float(state["steps"][0])
        if value is not None:
            with state.rows([0], torch.device("cpu")) as rows:
                rows["steps"].fill_(value)
            store.commit(state)
        return found

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def test_each_phase_goes_on_from_the_one_before_it(client: Client) -> None:
    values = iter(range(1, 100))
    left = 0.0
    for server_round in (1, 2, 3):
        for phase in ORDER:
            value = float(next(values))
            assert client.handle(server_round, phase, value) == left
            left = value


def test_a_round_may_lack_phases(client: Client) -> None:
    client.handle(1, "train", 10)
    assert client.handle(1, "evaluate") == 10
    assert client.handle(2, "train", 20) == 10
    client.handle(3, "expand", 31)
    assert client.handle(3, "evaluate") == 31  # who was not drawn to train
    assert client.handle(4, "train") == 31


def test_a_phase_that_is_repeated_begins_where_it_began_before(client: Client) -> None:
    """The server broke off after each of these, and went back to its checkpoint of round 1."""
    client.handle(1, "train", 10)
    for broken_off in range(1, len(ORDER) + 1):
        for _ in range(2):
            left = 10.0
            for place, phase in enumerate(ORDER[:broken_off]):
                assert client.handle(2, phase, 20.0 + place, checkpoint=1) == left
                left = 20.0 + place


def test_training_is_repeated_from_before_it_where_the_round_has_no_other_phase(client: Client) -> None:
    client.handle(1, "train", 10)
    client.handle(2, "train", 20, checkpoint=1)
    client.handle(2, "evaluate", 21, checkpoint=1)
    assert client.handle(2, "train", 20, checkpoint=1) == 10


def test_a_question_that_is_none_of_a_round_sees_what_training_begins_with(client: Client) -> None:
    client.handle(1, "train", 10)
    client.handle(2, "neighbours", 21)
    assert client.handle(2, "structure") == 21
    client.handle(2, "train", 22)
    assert client.handle(3, "export") == 22


def test_only_the_newest_files_and_those_to_go_back_to_stay(client: Client) -> None:
    client.handle(1, "train", 10)
    assert client.files == ["round-000001.safetensors"]
    for phase, name in zip(ORDER, ("-expand", "-neighbours", "", "-evaluate"), strict=True):
        client.handle(2, phase, 20, checkpoint=1)
        assert client.files == sorted(["round-000001.safetensors", f"round-000002{name}.safetensors"])
    client.handle(3, "expand", 30, checkpoint=2)
    assert client.files == ["round-000002-evaluate.safetensors", "round-000003-expand.safetensors"]
    client.handle(2, "expand", 20, checkpoint=1)  # the server went back further than it had said; later ones go
    assert client.files == ["round-000002-expand.safetensors"]


def test_files_of_no_phase_are_let_alone(client: Client) -> None:
    (client.folder / "round-000001-notes.safetensors").write_bytes(b"not a state")
    client.handle(2, "train", 20)
    assert client.handle(3, "train", 30) == 20
    assert "round-000001-notes.safetensors" in client.files
