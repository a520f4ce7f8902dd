"""Facts on a deployed run that its server writes while it goes on, and that are in no other file."""

from __future__ import annotations

import math
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field


class NodeStatus(BaseModel):
    """A node of a running federation.

    Attributes:
        node: Flower's number of it.
        clients: ids of the clients that it hosts; empty for a node that hosts none, as the matcher does.
        heard: time of day of its last reply, in seconds; None where it has not replied to this process.
        connected: True where the SuperLink counts it as connected.
    """

    model_config = ConfigDict(frozen=True)

    node: int
    clients: tuple[int, ...] = ()
    heard: float | None = None
    connected: bool = True


class LiveStatus(BaseModel):
    """Content of ``status.json``: facts on a deployed run that are in no other file while it goes on.

    Attributes:
        process: number of the server's process, and its time of creation in seconds, by which a later process of the
            same number is told from it.
        run_id: the name of the run's folders on nodes.
        state: present work of the server, in words.
        updated: time of day at which this was written, in seconds.
        nodes: all nodes that have answered.
        refused: clients and reason of each refused node.
        exchanged: bytes up and down outside of rounds, so far.
        epsilon: the epsilon that uploads have spent so far; None where there is none.
    """

    model_config = ConfigDict(frozen=True)

    process: tuple[int, float]
    run_id: str
    state: str
    updated: float
    nodes: tuple[NodeStatus, ...] = ()
    refused: tuple[dict[str, Any], ...] = ()
    exchanged: dict[str, int] = Field(default_factory=dict)
    epsilon: float | None = None

    @property
    def is_alive(self) -> bool:
        """True where the process that wrote this runs on this machine."""
        number, created = self.process
        try:
            return math.isclose(psutil.Process(number).create_time(), created, abs_tol=1.0)
        except psutil.Error:
            return False


def this_process() -> tuple[int, float]:
    """Number and time of creation of the present process."""
    process = psutil.Process()
    return process.pid, process.create_time()
