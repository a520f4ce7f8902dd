"""Clients' states as files: which one a round begins with, which ones stay, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from safetensors.numpy import load_file

from subfl_flower.errors import SubflError
from subfl_flower.node.durable_store import DurableStore, StateCard
from subfl_flower.node.state import CohortState, ContextStore, MappedStore, MemoryStore, StateStore
from subfl_flower.storage.tensor_file import write_tensor_file

IDS = (3, 8, 11)
SHAPES: dict[str, tuple[int, ...]] = {"mask": (2, 3), "steps": (), "best": (5,)}
CPU = torch.device("cpu")


class Client:
    """A client's folder, and the rounds that it trains as a process would that starts again for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def folder_of(self, client_id: int) -> Path:
        return self.folder / f"client-{client_id}"

    def store(
        self, server_round: int, checkpoint: int = 0, keep: bool = True, store: StateStore | None = None
    ) -> DurableStore:
        return DurableStore(store or MemoryStore(), self.folder_of, server_round, checkpoint, keep)

    def train(self, server_round: int, checkpoint: int, positions: Sequence[int] = (0,), keep: bool = True) -> None:
        """Set the steps of some clients to the round."""
        store = self.store(server_round, checkpoint, keep)
        state = store.open(IDS, SHAPES)
        with state.rows(positions, CPU) as rows:
            for stack in rows.values():
                stack.fill_(float(server_round))
        store.commit(state)

    def found(self, server_round: int, position: int = 0) -> float:
        """The round whose state a client begins a round with; 0 where it is fresh."""
        state = self.store(server_round).open(IDS, SHAPES)
        return 0.0 if state.is_fresh(position) else float(state["steps"][position])

    def rounds(self, client_id: int = IDS[0]) -> list[int]:
        """Of the files that are there; there is nothing else in the folder."""
        names = sorted(path.name for path in self.folder_of(client_id).glob("*"))
        assert all(name.startswith("round-") and name.endswith(".safetensors") for name in names), names
        return [int(name[6:12]) for name in names]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def random_state(store: StateStore) -> CohortState:
    """Anything that a float32 can be, denormal and infinite included."""
    state = store.open(IDS, SHAPES)
    generator = np.random.default_rng(0)
    with state.rows(range(len(IDS)), CPU) as rows:
        for stack in rows.values():
            bits = generator.integers(0, 2**32, stack.shape, dtype=np.uint32)
            values = bits.view(np.float32)
            stack.copy_(torch.from_numpy(np.where(np.isnan(values), np.float32(-0.0), values)))
        rows["best"][0, :3] = torch.tensor([1e-45, torch.inf, -torch.inf])
    return state


@pytest.mark.parametrize("kind", ["memory", "mapped", "context"])
def test_every_stack_comes_back_bit_by_bit(client: Client, tmp_path: Path, kind: str) -> None:
    stores: dict[str, Callable[[], StateStore]] = {
        "memory": MemoryStore,
        "mapped": lambda: MappedStore(tmp_path / os.urandom(4).hex()),
        "context": lambda: ContextStore(RecordDict()),
    }
    store = client.store(1, store=stores[kind]())
    written = random_state(store)
    store.commit(written)
    read = client.store(2, store=stores[kind]()).open(IDS, SHAPES)
    for name in SHAPES:
        np.testing.assert_array_equal(
            read[name].numpy().view(np.uint32), written[name].numpy().view(np.uint32), err_msg=name
        )
    assert not any(read.is_fresh(position) for position in range(len(IDS)))


def test_the_file_is_a_clients_state_by_name(client: Client) -> None:
    store = client.store(4)
    state = random_state(store)
    store.commit(state)
    values = load_file(client.folder_of(8) / "round-000004.safetensors")
    assert {name: (value.shape, str(value.dtype)) for name, value in values.items()} == {
        name: (shape, "float32") for name, shape in SHAPES.items()
    }
    np.testing.assert_array_equal(values["mask"], state["mask"][1].numpy())


@pytest.mark.parametrize(("server_round", "found"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 4), (6, 5), (100, 5)])
def test_a_round_begins_with_the_newest_state_before_it(client: Client, server_round: int, found: int) -> None:
    for number in (1, 4, 5):
        save_state(client, number)
    assert client.found(server_round) == found


def save_state(client: Client, number: int, values: dict[str, np.ndarray] | None = None, of: int = IDS[0]) -> Path:
    """A file as another process left it."""
    path = client.folder_of(IDS[0]) / f"round-{number:06d}.safetensors"
    if values is None:
        values = {name: np.full(shape, number, dtype=np.float32) for name, shape in SHAPES.items()}
    write_tensor_file(path, values, StateCard(client=of, round=number, phase="train"))
    return path


def test_numbers_and_not_names_are_compared(client: Client) -> None:
    save_state(client, 999_999).rename(client.folder_of(IDS[0]) / "round-1000000.safetensors")
    save_state(client, 999_998)
    assert client.found(1_000_001) == 999_999


def test_a_repeated_round_leaves_later_ones_aside_and_removes_them(client: Client) -> None:
    """The federation went back to its checkpoint of round 2; this client had trained round 5 already."""
    for number in (2, 4, 5):
        save_state(client, number)
    assert client.found(3) == 2
    client.train(3, checkpoint=2)
    assert client.rounds() == [2, 3] and client.found(4) == 3


# Each step: the round, the last checkpoint when it was sent, whether the client takes part; then the files that it has.
# Before the next step the server may die and go back to any checkpoint not older than the last one announced: the state
# that such a run begins with must be the one of the client's last participation up to that checkpoint.
SEQUENCES = {
    "a checkpoint every round": [
        (1, 0, True, [1]),
        (2, 1, True, [1, 2]),
        (3, 2, True, [2, 3]),
        (4, 3, True, [3, 4]),
    ],
    "a checkpoint every three rounds": [
        (1, 0, True, [1]),
        (2, 0, True, [2]),  # round 0 needs no state, and round 3 will not need that of round 1
        (3, 0, True, [3]),
        (4, 3, True, [3, 4]),
        (5, 3, True, [3, 5]),
        (6, 3, True, [3, 6]),
        (7, 6, True, [6, 7]),
    ],
    "absent from the rounds of checkpoints": [
        (1, 0, True, [1]),
        (2, 0, False, [1]),
        (3, 2, True, [1, 3]),  # checkpoint 2 needs round 1
        (4, 2, False, [1, 3]),
        (5, 4, True, [3, 5]),  # checkpoint 4 needs round 3
        (6, 4, False, [3, 5]),
        (7, 6, False, [3, 5]),
        (8, 6, True, [5, 8]),
    ],
    "absent for long": [
        (1, 0, True, [1]),
        (2, 1, True, [1, 2]),
        (3, 2, False, [1, 2]),
        (4, 3, False, [1, 2]),
        (5, 4, False, [1, 2]),
        (6, 5, True, [2, 6]),
    ],
    "back to checkpoint 2 and on": [
        (1, 0, True, [1]),
        (2, 0, True, [2]),
        (3, 2, True, [2, 3]),
        (3, 2, True, [2, 3]),
        (4, 2, True, [2, 4]),
        (3, 2, True, [2, 3]),
        (4, 2, True, [2, 4]),
        (5, 4, True, [4, 5]),
    ],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_an_announced_checkpoint_needs_is_never_lost(client: Client, name: str) -> None:
    took_part: list[int] = []
    for server_round, checkpoint, present, files in SEQUENCES[name]:
        took_part = [number for number in took_part if number < server_round]
        assert client.found(server_round) == max(took_part, default=0)
        if present:
            client.train(server_round, checkpoint)
            took_part.append(server_round)
        assert client.rounds() == files
        # What the server may go back to: the announced checkpoint, or that of this round.
        for restart in (checkpoint, server_round):
            expected = max((number for number in took_part if number <= restart), default=0)
            assert client.found(restart + 1) == expected, (server_round, restart)


def test_nothing_is_written_where_nothing_is_to_be_kept(client: Client) -> None:
    client.train(1, 0, keep=False)
    assert not any(client.folder.iterdir())
    save_state(client, 1)
    client.train(2, 1, keep=False)
    assert client.rounds() == [1]


def test_what_was_not_kept_in_a_round_is_kept_in_the_next_that_keeps(client: Client) -> None:
    """One process, checkpoints every other round; a client that fails in the second goes on from the first."""
    memory = MemoryStore()
    for server_round, keep, positions in ((1, False, [0, 1]), (2, True, [1])):
        store = client.store(server_round, keep=keep, store=memory)
        state = store.open(IDS, SHAPES)
        with state.rows(positions, CPU) as rows:
            rows["steps"].fill_(float(server_round))
        store.commit(state)
    assert [client.rounds(client_id) for client_id in IDS] == [[2], [2], []]
    assert [client.found(3, position) for position in range(3)] == [1, 2, 0]


def test_only_rows_that_changed_are_written(client: Client) -> None:
    client.train(1, 0, positions=[0, 1])
    client.train(2, 1, positions=[1, 2])  # row 0 is read back by this process, and not worked on
    assert [client.rounds(client_id) for client_id in IDS] == [[1], [1, 2], [2]]
    state = (store := client.store(3, checkpoint=2)).open(IDS, SHAPES)
    store.commit(state)
    assert [client.rounds(client_id) for client_id in IDS] == [[1], [1, 2], [2]]


def test_a_client_that_fails_leaves_no_state_of_the_round(client: Client) -> None:
    client.train(1, 0)
    store = client.store(2, checkpoint=1)
    state = store.open(IDS, SHAPES)
    with pytest.raises(ZeroDivisionError), state.rows([0], CPU) as rows:
        rows["steps"].fill_(2.0)
        raise ZeroDivisionError
    store.commit(state)
    assert client.rounds() == [1] and client.found(3) == 1


def test_a_process_that_is_still_there_goes_on_with_its_own_memory(client: Client) -> None:
    memory = MemoryStore()
    store = client.store(1, store=memory)
    state = store.open(IDS, SHAPES)
    with state.rows([0], CPU) as rows:
        rows["steps"].fill_(1.0)
    store.commit(state)
    save_state(client, 2)
    assert float(client.store(3, store=memory).open(IDS, SHAPES)["steps"][0]) == 1.0


def test_what_a_killed_process_began_is_removed_with_the_next_round_and_never_read(client: Client) -> None:
    save_state(client, 1)
    for number in (1, 2):
        (client.folder_of(IDS[0]) / f".round-{number:06d}.safetensors.77.0badcafe").write_bytes(b"half")
    assert client.found(3) == 1
    client.train(3, checkpoint=2)
    assert client.rounds() == [1, 3]


def test_what_another_node_writes_at_the_same_time_stays(client: Client) -> None:
    """The oracle's central model is the same on every node, and all keep it in one folder."""
    other = client.folder_of(IDS[0]) / ".round-000002.safetensors.77.0badcafe"
    save_state(client, 1)
    other.write_bytes(b"half")
    client.train(2, checkpoint=1)
    assert other.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"mask": np.zeros((2, 4), np.float32), "steps": np.zeros((), np.float32), "best": np.zeros(5, np.float32)},
        {"mask": np.zeros((2, 3), np.float32), "steps": np.zeros((), np.float32)},
        {**{name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, "more": np.zeros(1, np.float32)},
        {name: np.zeros(shape, np.float64) for name, shape in SHAPES.items()},
        {},
    ],
    ids=["another shape", "one less", "one more", "another type", "empty"],
)
def test_the_state_of_another_model_is_refused(client: Client, values: dict[str, np.ndarray]) -> None:
    refused(client, save_state(client, 1, values))


def test_the_state_of_another_client_is_refused(client: Client) -> None:
    refused(client, save_state(client, 1, of=8), "it is of the client 8, not of the client 3")


def refused(client: Client, path: Path, words: str = "") -> None:
    with pytest.raises(SubflError) as error:
        client.found(2)
    text = str(error.value)
    assert text.startswith(f"{path} does not hold the state of a client: {words}") and "\n" not in text
    assert client.found(1) == 0  # it is in nobody's way before its round


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "header", "bfloat16", "float8", "folder"])
def test_a_damaged_file_is_refused(client: Client, damage: str) -> None:
    path = save_state(client, 1)
    content = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage in ("bfloat16", "float8"):
        kind = {"bfloat16": b"BF16", "float8": b"F8_E4M3"}[damage]
        header = b'{"mask":{"dtype":"%s","shape":[4],"data_offsets":[0,%d]}}' % (kind, 8 if kind == b"BF16" else 4)
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8 if kind == b"BF16" else 4))
    else:
        path.write_bytes(
            {
                "cut": content[:-3],
                "empty": b"",
                "noise": np.random.default_rng(0).bytes(200),
                "header": content.replace(b'"F32"', b'"F99"'),
            }[damage]
        )
    refused(client, path)


def test_a_file_of_whatever_bytes_is_read_or_refused_in_one_sentence(client: Client) -> None:
    path = save_state(client, 1)
    content, generator = path.read_bytes(), np.random.default_rng(1)
    refusals = 0
    for _ in range(300):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), generator.integers(1, 4)):
            changed[place] = generator.integers(256)
        path.write_bytes(changed)
        try:
            client.found(2)
        except SubflError as error:
            refusals += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refusals > 100


def test_a_folder_that_cannot_be_written_says_so_and_keeps_what_is_there(client: Client) -> None:
    (client.folder / "client-3").write_text("in the way")
    with pytest.raises(
        SubflError, match=r"^the state of a client cannot be written to .*/client-3/round-000001\.safetensors: Not a"
    ):
        client.train(1, 0)
