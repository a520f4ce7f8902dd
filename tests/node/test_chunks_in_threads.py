"""Batches in several threads: results, failures and interruptions are as if they were worked one after another."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from subfl_flower.node.cores import cores_of, shared_among, threads_given_back
from subfl_flower.node.iteration import SideBySide, in_chunks
from subfl_flower.wire.batch import Batch, Result

CHUNKS = [(4, 2, 7), (1,), (9, 5), (3,), (8, 6)]


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    with threads_given_back():
        yield


def batches(*chunks: tuple[int, ...]) -> list[Batch]:
    return [Batch.of_stack(ids, {"w": np.array(ids, np.float32)[:, None]}) for ids in chunks]


class Slowest:
    """Sends twice what was received, the first batch last; fails on a chunk with one of some clients."""

    def __init__(self, *failing: int) -> None:
        self.failing = failing

    def __call__(self, batch: Batch) -> Result:
        time.sleep(0.002 * (10 - batch.clients[0]))
        if bad := [client for client in batch.clients if client in self.failing]:
            raise OSError(f"the disk of {bad[0]} is full")
        return Result(batch.clients, {"w": 2 * batch.stack["w"]}, metrics={"id": np.array(batch.clients, float)})


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
@pytest.mark.parametrize("failing", [(), (2,), (6, 7, 1), (4, 2, 7)])
def test_results_and_failures_are_in_the_order_of_the_batches(workers: int, failing: tuple[int, ...]) -> None:
    result = SideBySide(workers)(batches(*CHUNKS), Slowest(*failing))
    clients = [client for chunk in CHUNKS for client in chunk]
    succeeded = [client for client in clients if client not in failing]
    assert list(result.clients) == succeeded
    assert result.arrays["w"][:, 0].tolist() == [2 * client for client in succeeded]
    assert result.metrics["id"].tolist() == succeeded
    expected = {client: f"OSError: the disk of {client} is full" for client in clients if client in failing}
    assert list(result.failures.items()) == list(expected.items())


def test_as_many_batches_as_workers_are_worked_at_the_same_time_and_no_more() -> None:
    meeting, now, most, lock = threading.Barrier(2, timeout=30), [0], [0], threading.Lock()

    def work(batch: Batch) -> Result:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        meeting.wait()  # nobody goes on alone
        with lock:
            now[0] -= 1
        return Result(batch.clients)

    assert SideBySide(2)(batches((0,), (1,), (2,), (3,)), work).clients == (0, 1, 2, 3)
    assert most == [2]


def test_each_thread_computes_with_its_share_of_pytorchs_threads() -> None:
    torch.set_num_threads(4)
    seen: list[int] = []

    def work(batch: Batch) -> Result:
        seen.append(torch.get_num_threads())
        return Result(batch.clients)

    with threads_given_back():
        SideBySide(2, 3)(batches((0,), (1,)), work)
        in_chunks(batches((2,)), work)
    assert (seen, torch.get_num_threads()) == ([3, 3, 4], 4)
    elsewhere: list[int] = []
    thread = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert elsewhere == [4]  # new threads of the caller's program, too


def test_one_batch_or_one_worker_needs_no_thread() -> None:
    seen: list[threading.Thread] = []

    def work(batch: Batch) -> Result:
        seen.append(threading.current_thread())
        return Result(batch.clients)

    SideBySide(1)(batches((0,), (1,)), work)
    SideBySide(4)(batches((2, 3)), work)
    assert set(seen) == {threading.main_thread()}


def test_what_is_no_clients_failure_ends_the_work() -> None:
    worked: list[int] = []

    def work(batch: Batch) -> Result:
        worked.append(batch.clients[0])
        if batch.clients[0] == 1:
            raise SystemExit(3)
        time.sleep(0.05)
        return Result(batch.clients)

    with pytest.raises(SystemExit):
        SideBySide(2)(batches(*((client,) for client in range(40))), work)
    assert 1 in worked and len(worked) < 10


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which another test of the process may have replaced."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_all_threads() -> None:
    begun, ended, stopped = list[int](), list[int](), list[int]()

    def work(batch: Batch) -> Result:
        try:
            begun.append(batch.clients[0])
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                torch.ones(3).sum()
        except KeyboardInterrupt:
            stopped.append(batch.clients[0])
            raise
        ended.append(batch.clients[0])
        return Result(batch.clients)

    def press() -> None:
        while len(begun) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        SideBySide(2)(batches((0,), (1,), (2,)), work)
    assert (sorted(stopped), ended) == ([0, 1], [])
    assert threading.active_count() <= before


# The share of a process's cores --------------------------------------------------------------------------------------


def runtime(threads: int | str = "auto", given: int | None = None) -> Any:
    return SimpleNamespace(threads=threads, threads_per_process=given)


@pytest.mark.parametrize(
    ("cores", "clients", "workers", "inner"), [(1, 50, 1, 1), (2, 50, 2, 1), (8, 1, 1, 8), (8, 3, 3, 2), (4, 0, 1, 4)]
)
def test_cores_are_divided_among_clients(cores: int, clients: int, workers: int, inner: int) -> None:
    assert shared_among(cores, clients) == SideBySide(workers, inner)


@pytest.mark.parametrize("cores", [1, 3])
def test_auto_is_pytorchs_number_at_the_beginning_unless_the_runtime_gives_another(cores: int) -> None:
    torch.set_num_threads(cores)
    with threads_given_back():
        torch.set_num_threads(7)  # as a node does for its own work
        assert [cores_of(runtime()), cores_of(runtime(given=2)), cores_of(runtime(5, given=2))] == [cores, 2, 5]
    assert torch.get_num_threads() == cores
