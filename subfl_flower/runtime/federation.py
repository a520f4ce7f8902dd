"""A whole run on the server's side, the same under every runtime: roster, rounds, records, summary."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from subfl_flower.config import Config, load_class, settings_of
from subfl_flower.data.prepared import prepare
from subfl_flower.errors import RunFailure
from subfl_flower.evaluation.summary import summarise
from subfl_flower.models.gcn import StackedGCN
from subfl_flower.runtime.exchange import Exchange
from subfl_flower.runtime.loggers import build_loggers
from subfl_flower.runtime.memory import keep_freed_memory
from subfl_flower.runtime.participation import Participation
from subfl_flower.runtime.progress import RunProgress
from subfl_flower.runtime.roster import Roster, collect_roster, describe_error
from subfl_flower.runtime.run_directory import RunDirectory
from subfl_flower.runtime.strategy import RUN, CohortStrategy, Updates

_PER_CLIENT = ("validation", "test", "validation_as_received", "test_as_received", "train_loss", "sparsity")
_PACKAGES = ("subfl-flower", "flwr", "ray", "torch", "numpy", "pymetis", "networkx")


def run_federation(
    grid: Grid, config: Config, directory: Path, stop: threading.Event, lines: bool = False
) -> dict[str, Any]:
    """Train, and leave a run directory.

    Args:
        grid: the connection to the nodes.
        config: of the run.
        directory: where to write; made if need be.
        stop: set it to end the run after the current round; what is finished is kept.
        lines: print progress lines where there is no terminal.

    Returns:
        The summary.

    Raises:
        SubflError: the data cannot be prepared, a node cannot be reached, or a client failed and
            ``runtime.on_client_failure`` is ``stop``. The run directory then says so in its summary.
    """
    keep_freed_memory()
    partition = prepare(config.dataset, config.partition, config.data.root, config.data.cache, config.task.needs_labels)
    loggers = build_loggers(config.logger)
    records = RunDirectory.create(directory)
    records.write_config(config.plain())
    started = time.time()
    run = ConfigRecord({"config": json.dumps(config.plain()), "directory": str(directory.absolute())})
    rounds: list[dict[str, Any]] = []
    exchanges: list[dict[str, Any]] = []
    status = "failed"
    try:
        for logger in loggers:
            logger.start(config.plain(), records)
        roster = collect_roster(grid, run, partition.num_clients, config.runtime.node_timeout)
        strategy = _strategy(config, roster)
        exchange = Exchange(grid, run, roster, config.runtime.on_client_failure == "continue")
        exchanges = exchange.log
        strategy.set_up(exchange)
        title = f"{config.method.name} on {config.dataset.name}"
        with RunProgress(title, config.federation.rounds, lines) as progress:
            for record, mixing in _rounds(grid, strategy, config, run):
                records.append_round(record)
                if mixing is not None:
                    records.add_mixing(record["round"], mixing)
                rounds.append(record)
                for logger in loggers:
                    logger.log_round(record)
                progress.advance(record)
                if stop.is_set():
                    break
        if config.record.client_models:
            _export(grid, roster, run)
        status = "interrupted" if len(rounds) < config.federation.rounds else "completed"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        summary = {"status": status, **_about(config, partition.num_clients), **summarise(rounds)}
        summary["seconds"] = time.time() - started
        summary["exchanges"] = exchanges
        for direction in ("bytes_up", "bytes_down"):
            summary[direction] += sum(phase[direction] for phase in exchanges)
        records.write_summary(summary)
        for logger in loggers:
            logger.finish(summary)
        shutil.rmtree(directory / "state", ignore_errors=True)
    return summary


def _strategy(config: Config, roster: Roster) -> CohortStrategy:
    family = load_class(config.method.strategy, CohortStrategy, "method.strategy")
    model = StackedGCN(config.model, roster.num_features, config.task.num_outputs(roster.num_classes))
    strategy: CohortStrategy = family(settings_of(family, config.method), roster, model.initial_of(config.seed))
    strategy.participation = Participation(config.federation.fraction, config.seed)
    return strategy


def _rounds(
    grid: Grid, strategy: CohortStrategy, config: Config, run: ConfigRecord
) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """Train round after round; each round's record, and its mixing matrix where one is to be kept."""
    empty = ArrayRecord()
    latest = _LatestMetrics(config.task.metric, len(strategy.roster))
    for server_round in range(1, config.federation.rounds + 1):
        start = time.perf_counter()
        messages = strategy.configure_train(server_round, empty, run, grid)
        sent = time.perf_counter()
        replies = grid.send_and_receive(messages)
        received = time.perf_counter()
        strategy.aggregate_train(server_round, replies)
        end = time.perf_counter()
        updates = strategy.updates
        assert updates is not None
        if updates.failures and (config.runtime.on_client_failure == "stop" or not len(updates.positions)):
            client, reason = min(updates.failures.items())
            raise RunFailure(f"client {client} failed in round {server_round}: {reason}")
        seconds = {
            "round": end - start,
            "client": updates.client_seconds,
            "server": (sent - start) + (end - received),
            "transport": max(0.0, received - sent - updates.client_seconds),
        }
        wanted = server_round % config.record.mixing_every == 0 or server_round == config.federation.rounds
        yield _record(updates, strategy.roster, seconds, latest), strategy.mixing if wanted else None


class _LatestMetrics:
    """The last known figures of every client, so that the mean over clients also speaks of those that were absent.

    Args:
        metric: what validation and test measure.
        num_clients: K.
    """

    def __init__(self, metric: str, num_clients: int) -> None:
        self.metric = metric
        self.heard = np.zeros(num_clients, dtype=bool)
        self._values: dict[str, np.ndarray] = {}

    def take(self, updates: Updates) -> dict[str, float | None]:
        """Take in a round; each figure's mean over the clients heard so far, None where nobody has it."""
        self.heard[updates.positions] = True
        for name in _PER_CLIENT:
            if name in updates.metrics:
                values = self._values.setdefault(name, np.full(len(self.heard), np.nan))
                values[updates.positions] = updates.metrics[name]
        return {
            name: None if np.isnan(values).all() else float(np.nanmean(values)) for name, values in self._values.items()
        }


def _record(updates: Updates, roster: Roster, seconds: Mapping[str, float], latest: _LatestMetrics) -> dict[str, Any]:
    """A round's line of ``metrics.jsonl``."""
    clients: dict[str, Any] = {
        "ids": [roster.client_ids[position] for position in updates.positions],
        "num_examples": updates.metrics["num_examples"].astype(int).tolist(),
        "bytes_up": updates.bytes_up[updates.positions].tolist(),
        "bytes_down": updates.bytes_down[updates.positions].tolist(),
    }
    for name in _PER_CLIENT:
        if name in updates.metrics:
            clients[name] = [None if math.isnan(value) else value for value in updates.metrics[name].tolist()]
    return {
        "round": updates.server_round,
        "metric": latest.metric,
        **latest.take(updates),
        "clients_heard": int(latest.heard.sum()),
        "clients": clients,
        "bytes_up": int(updates.bytes_up.sum()),
        "bytes_down": int(updates.bytes_down.sum()),
        "seconds": dict(seconds),
        "failures": {str(client): reason for client, reason in updates.failures.items()},
    }


def _export(grid: Grid, roster: Roster, run: ConfigRecord) -> None:
    """Have every node write its clients' best models."""
    nodes = sorted(set(roster.node_ids))
    replies = grid.send_and_receive([Message(RecordDict({RUN: run}), node, "query.export") for node in nodes])
    for reply in replies:
        if reply.has_error():
            # The training is finished and recorded; a model that cannot be written does not undo it.
            log(WARNING, "the models of a node's clients were not written: %s", describe_error(reply))


def _about(config: Config, num_clients: int) -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "method": config.method.name,
        "dataset": config.dataset.name,
        "partition": config.partition.name,
        "clients": num_clients,
        "seed": config.seed,
        "task": config.task.name,
        "metric": config.task.metric,
        "versions": versions,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit that this code was checked out at, where it is a checkout."""
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second interrupts at once. Only the main thread can catch signals."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
