"""Processes killed at any moment while they write: what is left can be read, and is as new as they said it was."""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cards import toy_card

from subfl_flower.models.settings import ModelSettings
from subfl_flower.node.durable_store import DurableStore
from subfl_flower.node.state import MemoryStore
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.checkpoint import Checkpoint
from subfl_flower.storage.tensor_file import MODEL_FILE
from subfl_flower.subgraphs.models.exported import ExportedModel, ModelCard, read_model
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.wire.roster import Roster

KILLS = 20
LONGEST = 0.15
"""Seconds within which a child is killed after its first finished round."""
IDS = (0, 3)
SHAPES: dict[str, tuple[int, ...]] = {"mask": (64, 300), "steps": ()}
CPU = torch.device("cpu")
Tell = Callable[[int], None]


def killed(work: Callable[[Tell], None], seconds: float) -> int:
    """Fork a child that does `work`, kill it some time after the first round it tells of; the last round it told of."""
    read_end, write_end = os.pipe()

    def child() -> None:
        os.close(read_end)
        work(lambda number: _write_number(write_end, number))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    os.close(write_end)
    try:
        assert select.select([read_end], [], [], 60)[0], "no round was finished"
        time.sleep(seconds)
        assert process.is_alive() and process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        told = b""
        while part := os.read(read_end, 65536):
            told += part
    finally:
        os.close(read_end)
        process.kill()
        process.join(60)
    return int.from_bytes(told[-8:], "little")


def _write_number(descriptor: int, number: int) -> None:
    os.write(descriptor, number.to_bytes(8, "little"))  # 8 bytes go into a pipe at once


def moments(seed: int) -> Iterator[float]:
    generator = random.Random(seed)
    return (generator.uniform(0, LONGEST) for _ in range(KILLS))


@pytest.fixture(autouse=True)
def quiet_fork() -> Iterator[None]:
    """Python warns of forks in processes with threads; these children start none and take no lock of the parent's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """A forked child cannot use the threads that PyTorch has started in its parent."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def roster() -> Roster:
    sizes = np.array([5.0, np.nan])
    return Roster(IDS, (1, None), sizes, sizes, sizes, 3, 2, False)


def checkpoint(number: int) -> Checkpoint:
    strategy = {"parameters": np.full((2, 100, 100), number, np.float32), "norms": np.full(2, number, np.float64)}
    return Checkpoint("ab12", number, roster(), strategy, [], float(number))


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def test_a_checkpoint_is_whole_and_the_last_that_was_told_or_later(tmp_path: Path) -> None:
    first = 1
    for seconds in moments(0):

        def work(tell: Tell, start: int = first) -> None:
            for number in range(start, 10**6):
                checkpoint(number).write(tmp_path)
                tell(number)

        told = killed(work, seconds)
        found = Checkpoint.read(tmp_path)
        assert found.server_round in (told, told + 1)
        assert found.seconds == found.server_round
        for stack in found.strategy.values():
            assert (stack == found.server_round).all()
        assert len(hidden(tmp_path)) <= 1
        first = found.server_round + 1
    checkpoint(first).write(tmp_path)
    assert hidden(tmp_path) == [] and first > KILLS


def test_a_clients_states_are_whole_and_the_one_that_the_checkpoint_needs_is_there(tmp_path: Path) -> None:
    """Two clients of one node, a checkpoint every other round; the second client is absent from every third round."""

    def store(number: int) -> DurableStore:
        return DurableStore(MemoryStore(), lambda client: tmp_path / str(client), number, announced(number), keep=True)

    def announced(number: int) -> int:
        return (number - 1) // 2 * 2

    def present(position: int, number: int) -> bool:
        return position == 0 or number % 3 != 0

    def train(number: int) -> None:
        keeping = store(number)
        state = keeping.open(IDS, SHAPES)
        with state.rows([position for position in range(2) if present(position, number)], CPU) as rows:
            for stack in rows.values():
                stack.fill_(float(number))
        keeping.commit(state)

    def work(tell: Tell, start: int) -> None:
        for number in range(start, 10**6):
            train(number)
            tell(number)

    def last_present(position: int, number: int) -> int:
        return next((before for before in range(number, 0, -1) if present(position, before)), 0)

    first, seen = 1, set()
    with one_thread():
        for seconds in moments(1):
            told = killed(lambda tell, start=first: work(tell, start), seconds)  # type: ignore[misc]
            restart = announced(told + 1)
            needed = store(restart + 1).open(IDS, SHAPES)
            for position in range(2):
                expected = last_present(position, restart)
                assert (needed["mask"][position] == expected).all() and needed["steps"][position] == expected
            newest = store(told + 2).open(IDS, SHAPES)
            for position in range(2):
                assert float(newest["steps"][position]) in (
                    last_present(position, told),
                    last_present(position, told + 1),
                )
                assert (newest["mask"][position] == newest["steps"][position]).all()
            first = restart + 1  # back to the checkpoint, whatever the client has trained since
            seen.add(told % 6)
        train(told + 1)
        train(told + 2)
        train(told + 3)
    assert hidden(tmp_path) == [] and len(seen) > 1
    assert all(len(list((tmp_path / str(client)).iterdir())) <= 3 for client in IDS)


def test_a_run_directory_goes_back_to_its_checkpoint_whenever_it_was_killed(tmp_path: Path) -> None:
    """Rounds, mixing matrices and checkpoints as a server writes them; every start resumes the one before."""
    directory = tmp_path / "run"
    RunDirectory.create(directory)
    checkpoint(0).write(directory / "checkpoint")

    def work(tell: Tell) -> None:
        start = Checkpoint.read(directory / "checkpoint").server_round
        run = RunDirectory.reopen(directory, start)
        for number in range(start + 1, 10**6):
            run.append_round({"round": number, "clients": {"ids": [*range(500)], "test": [number] * 500}})
            run.add_mixing(number % 7 + 1, np.full((50, 50), number))  # as a file that does not grow without end
            if number % 2 == 0:
                run.force_rounds_to_disk()
                checkpoint(number).write(run.checkpoint_folder)
                tell(number)

    last = 0
    for seconds in moments(2):
        told = killed(work, seconds)
        found = Checkpoint.read(directory / "checkpoint").server_round
        assert found in (told, told + 2) and told > last
        rounds = RunDirectory(directory).rounds()
        assert [record["round"] for record in rounds] == list(range(1, len(rounds) + 1)) and len(rounds) >= found
        assert all(set(record["clients"]["test"]) == {record["round"]} for record in rounds)
        for matrix in RunDirectory(directory).mixing().values():
            assert len(np.unique(matrix)) == 1
        last = found
    run = RunDirectory.reopen(directory, last)
    assert [record["round"] for record in run.rounds()] == list(range(1, last + 1))
    assert hidden(directory) in ([], [name for name in hidden(directory) if name.startswith(".server.")])
    checkpoint(last).write(run.checkpoint_folder)
    assert hidden(directory) == []


def test_an_exported_model_is_whole(tmp_path: Path) -> None:
    settings = ModelSettings(name="gcn", hidden=64, layers=2, dropout=0.5)
    shapes = StackedGCN(settings, 300, 7).shapes

    def model(number: int) -> tuple[dict[str, np.ndarray], ModelCard]:
        card = toy_card(model=settings, num_features=300, num_classes=7, round=number)
        return {name: np.full(shape, number, np.float32) for name, shape in shapes.items()}, card

    ExportedModel(*model(0)).write_with_card(tmp_path / MODEL_FILE)

    def work(tell: Tell) -> None:
        for number in range(1, 10**6):
            ExportedModel(*model(number)).write_with_card(tmp_path / MODEL_FILE)
            tell(number)

    for seconds in moments(3):
        told = killed(work, seconds)
        tensors, card = read_model(tmp_path)
        assert card.round in (told, told + 1)
        assert all((values == card.round).all() for values in tensors.values())
