"""The matcher's node: the third party of a graph expansion (FedGNN, Algorithm 2). It hosts no client.

Its private key never leaves it, and it remembers the boxes that it has opened, so that none is opened twice. In a
simulation both are in the node's Flower context. A deployed matcher keeps them in files, because it starts a new
process for every message.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict

from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import domain_of
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.privacy.expansion import NO_BOUNDS, MatchBounds, Matcher
from subfl_flower.privacy.sealed_box import MatcherKey, ReplayGuard
from subfl_flower.storage.durable_files import make_private_folder, write_durably
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Question
from subfl_flower.wire.roster import MATCHER, ROLE

MATCH = "match"
BOX = "box"


def expansion_context(run_id: str, server_round: int) -> bytes:
    """Context that binds the boxes of one expansion: a box of another run or round does not open."""
    return f"subfl expansion {run_id} {server_round}".encode()


class MatcherMemory(ABC):
    """Memory of a matcher between messages."""

    @abstractmethod
    def key(self) -> MatcherKey:
        """Its key pair, made at the first call."""

    @abstractmethod
    def opened(self) -> bytes:
        """Record of the boxes opened in this run, for a `ReplayGuard`."""

    @abstractmethod
    def remember(self, opened: bytes) -> None:
        """Keep `opened`."""

    @abstractmethod
    def answered(self) -> dict[int, int]:
        """Number of requests answered in this run, by round."""

    @abstractmethod
    def remember_answered(self, answered: Mapping[int, int]) -> None:
        """Keep `answered`."""


class ContextMemory(MatcherMemory):
    """Memory in the state of a Flower context."""

    def __init__(self, state: RecordDict) -> None:
        self._state = state

    def key(self) -> MatcherKey:
        """Its key pair, made at the first call."""
        if MATCHER not in self._state.config_records:
            private = MatcherKey.generate().to_bytes()
            self._state[MATCHER] = ConfigRecord({"key": private, "opened": b"", "answered": "{}"})
        return MatcherKey.from_bytes(self._state.config_records[MATCHER]["key"])  # type: ignore[arg-type]

    def opened(self) -> bytes:
        """Record of the boxes opened in this run, for a `ReplayGuard`."""
        self.key()
        opened: Any = self._state.config_records[MATCHER]["opened"]
        return bytes(opened)

    def remember(self, opened: bytes) -> None:
        """Keep `opened`."""
        self._state.config_records[MATCHER]["opened"] = opened

    def answered(self) -> dict[int, int]:
        """Number of requests answered in this run, by round."""
        self.key()
        return _counts(self._state.config_records[MATCHER]["answered"])

    def remember_answered(self, answered: Mapping[int, int]) -> None:
        """Keep `answered`."""
        self._state.config_records[MATCHER]["answered"] = json.dumps(answered)


class FolderMemory(MatcherMemory):
    """Memory in a folder: ``matcher.key``, and a file of opened boxes for each run."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._key = SharedKey(folder / "matcher.key", create=True)
        self._opened = folder / "runs" / run_id / "opened.keys"
        self._answered = folder / "runs" / run_id / "answered.json"

    def key(self) -> MatcherKey:
        """Its key pair, made at the first call."""
        return MatcherKey.from_bytes(self._key.read())

    def opened(self) -> bytes:
        """Record of the boxes opened in this run, for a `ReplayGuard`."""
        return _read(self._opened)

    def remember(self, opened: bytes) -> None:
        """Keep `opened`."""
        _write(self._opened, opened)

    def answered(self) -> dict[int, int]:
        """Number of requests answered in this run, by round."""
        return _counts(_read(self._answered) or b"{}")

    def remember_answered(self, answered: Mapping[int, int]) -> None:
        """Keep `answered`."""
        _write(self._answered, json.dumps(answered).encode())


def _counts(text: Any) -> dict[int, int]:
    return {int(server_round): int(count) for server_round, count in json.loads(text).items()}


def _read(path: Path) -> bytes:
    """A file's content; empty where there is no such file."""
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise SubflError(f"the matcher's {path} cannot be read: {error.strerror or error}") from None


def _write(path: Path, content: bytes) -> None:
    try:
        make_private_folder(path.parent)
        write_durably(path, content)
    except OSError as error:
        raise SubflError(f"the matcher's {path} cannot be written: {error.strerror or error}") from None


class MatcherNode:
    """The third party of a graph expansion.

    Args:
        config: of the run.
        run_id: of the run.
        memory: holds its key, the record of opened boxes, and the number of answered requests.
        bounds: bounds of what it answers.
    """

    lasts: ClassVar[bool] = False
    """False: a process need not keep the node, because its memory is stored."""

    def __init__(self, config: Config, run_id: str, memory: MatcherMemory, bounds: MatchBounds = NO_BOUNDS) -> None:
        sizes = domain_of(config).expansion_sizes(config)
        if sizes is None:
            raise SubflError(f"method={config.method.name} has no use for a matcher")
        self._run_id, self._memory, self._bounds = run_id, memory, bounds
        self._width, self._most = sizes

    def answerer(self, run: ConfigRecord, context: Context, phase: str) -> MatcherNode:
        """The object that answers questions: the matcher."""
        return self

    def of_clients(self) -> NoReturn:
        """Refuse to act as a node that hosts clients.

        Raises:
            SubflError: always.
        """
        raise SubflError("this node is the matcher; it hosts no clients")

    def roster(self) -> ConfigRecord:
        """The answer to ``query.roster``: its role, and the key that users seal to."""
        return ConfigRecord({ROLE: MATCHER, "public_key": self._memory.key().public})

    def answer(self, question: Question) -> Answers:
        """Sealed neighbours for every box that opens, by the box's number; reasons for the others.

        Raises:
            SubflError: another phase is asked for.
        """
        if question.phase != MATCH:
            raise SubflError(f"the matcher has no answer to query.{question.phase}")
        guard = ReplayGuard(self._memory.opened())
        matcher = Matcher(self._memory.key(), self._width, self._most, guard, self._bounds)
        numbers = list(question.received)
        boxes = [_bytes(question.received[number]) for number in numbers]
        before, server_round = self._memory.answered(), question.server_round
        context = expansion_context(self._run_id, server_round)
        answered, refused = matcher.answer(boxes, context, before.get(server_round, 0))
        self._memory.remember(guard.remembered())
        told = sum(box is not None for box in answered)
        if told:
            self._memory.remember_answered({**before, server_round: before.get(server_round, 0) + told})
        return Answers(
            {
                number: {BOX: np.frombuffer(box, dtype=np.uint8)}
                for number, box in zip(numbers, answered, strict=True)
                if box is not None
            },
            {numbers[position]: reason for position, reason in refused.items()},
        )


def _bytes(stack: Stack) -> bytes:
    box = stack.get(BOX)
    return b"" if box is None or box.dtype != np.uint8 else box.tobytes()
