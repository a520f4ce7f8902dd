"""State of a run at one moment, from the files of its folder or from the process that carries it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.live import LiveStatus, NodeStatus


@dataclass
class RunStatus:
    """State of a run.

    Attributes:
        method, dataset: names.
        rounds: number of rounds asked for.
        state: ``completed``, ``failed``, ``interrupted``, ``cut off``, or present work in words.
        round: number of the last finished round; 0 before the first.
        counted: rounds that `seconds` and `traffic` are sums over.
        validation: metric of the last finished round; None where there is none.
        seconds: of all finished rounds by part, as `server.rounds.Seconds`.
        last_seconds: of the last finished round by part.
        traffic: bytes by direction: ``up``, ``down``, ``evaluation`` of rounds, ``exchanges`` outside of them.
        failures: number of rounds that each client failed in.
        clipped, excluded: number of rounds in which each client's update was scaled back, or left out of the average.
        last_failures: reason of each client that failed in the last finished round.
        epsilon: the epsilon that uploads have spent so far, of the user or client who spent most; None where a run has
            no such guarantee.
        live: facts that the server's process wrote last; None where it wrote none.
    """

    method: str
    dataset: str
    rounds: int
    state: str = "not started"
    round: int = 0
    counted: int = 0
    validation: float | None = None
    seconds: Counter[str] = field(default_factory=Counter)
    last_seconds: dict[str, float] = field(default_factory=dict)
    traffic: Counter[str] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    clipped: Counter[int] = field(default_factory=Counter)
    excluded: Counter[int] = field(default_factory=Counter)
    last_failures: dict[int, str] = field(default_factory=dict)
    epsilon: float | None = None
    live: LiveStatus | None = None

    @classmethod
    def of(cls, run: RunDirectory) -> RunStatus:
        """Read a folder, which another process may be writing to.

        Raises:
            SubflError: there is no run in it, or a file is damaged.
        """
        if not RunDirectory.is_run(run.path):
            raise SubflError(f"{run.path}: there is no run in this folder")
        config = run.config()
        try:
            method, dataset, rounds = (
                config["method"]["name"],
                config["dataset"]["name"],
                config["federation"]["rounds"],
            )
            status = cls(str(method), str(dataset), int(rounds))
        except (KeyError, TypeError, ValueError):
            raise SubflError(f"{run.config_path} lacks method.name, dataset.name or federation.rounds") from None
        status.take_all(run.rounds())
        status.live = run.live()
        summary = run.summary()
        if summary is not None:
            status.finish(summary)
        elif status.live is not None:
            status.traffic["exchanges"] = sum(status.live.exchanged.values())
            status.epsilon = status.live.epsilon
            status.state = status.live.state if status.live.is_alive else "cut off"
        else:
            status.state = "running, or cut off"
        return status

    def take_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Count finished rounds."""
        for record in records:
            self.take(record)

    def take(self, record: Mapping[str, Any]) -> None:
        """Count a finished round; `record` is its line of ``metrics.jsonl``."""
        self.round = int(record["round"])
        self.counted += 1
        self.validation = record.get("validation")
        self.last_seconds = {part: float(value or 0.0) for part, value in (record.get("seconds") or {}).items()}
        self.seconds.update(self.last_seconds)
        for direction in ("up", "down", "evaluation"):
            self.traffic[direction] += int(record.get(f"bytes_{direction}") or 0)
        self.last_failures = {int(client): str(reason) for client, reason in (record.get("failures") or {}).items()}
        self.failures.update(self.last_failures.keys())
        clients = record.get("clients") or {}
        for what, count in (("clipped", self.clipped), ("excluded", self.excluded)):
            count.update(
                client for client, value in zip(clients.get("ids", ()), clients.get(what) or (), strict=False) if value
            )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Take in the summary of a run that has ended."""
        self.state = str(summary.get("status"))
        self.traffic["exchanges"] = sum((summary.get("bytes_exchanges") or {}).values())
        self.spend(summary.get("privacy"))

    def spend(self, privacy: Mapping[str, Any] | None) -> None:
        """Take in a report of privacy, where there is one."""
        found = (privacy or {}).get("user_level_epsilon")
        if isinstance(found, int | float):
            self.epsilon = float(found)

    @property
    def nodes(self) -> Sequence[NodeStatus]:
        """The nodes that have answered; empty where no process wrote them."""
        return () if self.live is None else self.live.nodes

    @property
    def refused(self) -> Sequence[Mapping[str, Any]]:
        """Clients and reason of each refused node."""
        return () if self.live is None else self.live.refused
