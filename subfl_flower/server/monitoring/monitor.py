"""Watch over a deployed run: what it does is kept for `subfl deploy status`, Prometheus and the log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from logging import INFO, WARNING
from typing import Any, Protocol

from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.flower.heard_grid import HeardGrid
from subfl_flower.flower.log import event, log, remember
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.live import LiveStatus, NodeStatus, this_process
from subfl_flower.runs.status import RunStatus
from subfl_flower.server.monitoring.metrics import Endpoint
from subfl_flower.wire.roster import Roster

_SECONDS_BETWEEN_REPLIES = 1.0

Refusals = Sequence[Mapping[str, Any]]


class WatchedRun(Protocol):
    """The run, as a monitor sees it."""

    run_id: str

    def members(self) -> tuple[Roster | None, Refusals]:
        """The present roster, None before there is one; and clients and reason of each refused node."""

    def exchanged_bytes(self) -> Mapping[str, int]:
        """Bytes up and down outside of rounds, so far."""

    def privacy(self) -> Mapping[str, Any] | None:
        """The guarantees of the uploads so far; None where there are none."""


class RunMonitor:
    """State of the run that this process carries out.

    Each call updates `status`, writes ``status.json`` into the run's folder, and one line where the log is in JSON. A
    file that cannot be written does not end the run.

    Args:
        config: of the run.
        records: the run's folder.
        grid: the connection to the nodes.
        run: the run.
    """

    def __init__(self, config: Config, records: RunDirectory, grid: HeardGrid, run: WatchedRun) -> None:
        self.status = RunStatus(config.method.name, config.dataset.name, config.federation.rounds)
        self._records, self._grid, self._run = records, grid, run
        self._process = this_process()
        self._endpoint = Endpoint(self.status, run.run_id)
        self._complained = False
        self._shown = 0.0
        grid.on_reply = self._hear

    def begin(self, finished: Sequence[Mapping[str, Any]]) -> None:
        """Tell that the run begins, or goes on.

        Args:
            finished: records of earlier rounds, of a run that goes on.
        """
        status = self.status
        status.take_all(finished)
        remember(run=self._run.run_id)
        self._endpoint.open()
        self._show("begins")
        about: dict[str, Any] = {
            "method": status.method,
            "dataset": status.dataset,
            "rounds": status.rounds,
            "round": status.round,
        }
        event("begin", f"{status.method} on {status.dataset}", **about)

    def wait(self, said: str) -> None:
        """Tell that the run waits for nodes."""
        self._show(said)
        event("wait", said)

    def ask(self, action: str) -> None:
        """Tell of a phase outside of rounds."""
        self._show(f"asks for {action}")
        event("ask", f"asks for {action}", action=action, round=self.status.round + 1)

    def start_rounds(self) -> None:
        """Tell that the rounds begin."""
        self._show(f"round {self.status.round + 1}")

    def advance(self, record: Mapping[str, Any]) -> None:
        """Count a finished round; `record` is its line of ``metrics.jsonl``."""
        status = self.status
        status.take(record)
        status.spend(self._run.privacy())
        self._show(f"round {status.round + 1}" if status.round < status.rounds else "finishes")
        hosts = self._hosts()
        for client, reason in sorted(status.last_failures.items()):
            told = {"round": status.round, "client": client, "node": hosts.get(client)}
            event("client_failed", f"client {client} failed: {reason}", WARNING, **told)
        event(
            "round",
            f"round {status.round}/{status.rounds}",
            round=status.round,
            replied=len((record.get("clients") or {}).get("ids", ())),
            failures=len(status.last_failures),
            seconds=status.last_seconds,
            bytes_up=record.get("bytes_up"),
            bytes_down=record.get("bytes_down"),
            validation=status.validation,
            epsilon=status.epsilon,
        )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Tell how the run has ended."""
        self.status.finish(summary)
        self._show(self.status.state)
        level = INFO if self.status.state == "completed" else WARNING
        event("end", f"the run is {self.status.state}", level, status=self.status.state, round=self.status.round)
        self._endpoint.close()
        remember(run=None)

    def _hear(self) -> None:
        """Show, once a second, that nodes were heard."""
        if time.monotonic() - self._shown >= _SECONDS_BETWEEN_REPLIES:
            self._show(self.status.state)

    def _show(self, state: str) -> None:
        """Write the present state to the run's folder."""
        self._shown = time.monotonic()
        roster, refused = self._run.members()
        self.status.state = state
        self.status.live = LiveStatus(
            process=self._process,
            run_id=self._run.run_id,
            state=state,
            updated=time.time(),
            nodes=self._nodes(roster),
            refused=tuple(dict(refusal) for refusal in refused),
            exchanged=dict(self._run.exchanged_bytes()),
            epsilon=self.status.epsilon,
        )
        self.status.traffic["exchanges"] = sum(self.status.live.exchanged.values())
        try:
            self._records.write_live(self.status.live)
        except SubflError as error:
            if not self._complained:
                log(WARNING, "the state of the run is not shown: %s", error)
            self._complained = True

    def _nodes(self, roster: Roster | None) -> tuple[NodeStatus, ...]:
        """All nodes that have a client, or have replied, in order of their clients."""
        hosted: dict[int, list[int]] = {node: [] for node in self._grid.heard}
        for client, node in self._hosts(roster).items():
            hosted.setdefault(node, []).append(client)
        found = [
            NodeStatus(
                node=node,
                clients=tuple(clients),
                heard=self._grid.heard.get(node),
                connected=node in self._grid.connected,
            )
            for node, clients in hosted.items()
        ]
        return tuple(sorted(found, key=lambda each: (each.clients == (), each.clients, each.node)))

    def _hosts(self, roster: Roster | None = None) -> dict[int, int]:
        """The present node of each client that has one."""
        roster = roster or self._run.members()[0]
        if roster is None:
            return {}
        pairs = zip(roster.client_ids, roster.node_ids, strict=True)
        return {client: node for client, node in pairs if node is not None}
