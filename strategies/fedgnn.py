"""FedGNN (Wu et al., Nature Communications 2022): averaged gradients of users who hide, and expanded graphs.

The server never sees which items a user rated (pseudo items), a gradient as it was (local differential privacy), or
what users tell the matcher: it carries sealed boxes between them and a node of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from logging import WARNING
from typing import Any

import numpy as np
from flwr.supercore import log

from clients.fedgnn import EXPAND, NEIGHBOURS, WANTED, FedGNNClient
from clients.recommender import IDS, ITEMS, ROWS
from strategies.recommender import GradientAveraging, for_all
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.prepared import PreparedRatings
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.privacy.accountant import privacy_report
from subfl_flower.privacy.leakage import LeakageAudit, popularity_matching
from subfl_flower.privacy.tokens import TOKEN_BYTES
from subfl_flower.runtime.contract import Contract, RunContext
from subfl_flower.runtime.exchange import Exchange
from subfl_flower.runtime.matcher_node import BOX, MATCH
from subfl_flower.runtime.messages import Choice, Stack
from subfl_flower.runtime.ragged import Ragged
from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.updates import Updates
from subfl_flower.tasks import Ranking

HEADERS = 4096  # bytes beside what an answer is about: headers, keys, padding


class FedGNN(GradientAveraging):
    """Averages protected gradients, and has graphs expanded every few rounds."""

    Settings = FedGNNClient.Settings
    counterpart = FedGNNClient

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self._rows_of: dict[int, np.ndarray] = {}
        """Which rows of the item table the client at a position asked for, int32 ascending."""
        self._values_per_upload = 0
        self._audit = LeakageAudit(self.num_items, self.settings.audit_users) if self.settings.audit_users else None

    @classmethod
    def needs_matcher(cls, settings: FedGNNClient.Settings) -> bool:
        """Where graphs are expanded."""
        return settings.max_neighbours > 0

    # Rows of the item table -------------------------------------------------------------------------------------------

    def set_up(self, exchange: Exchange) -> None:
        """Refuse what the task cannot do."""
        if isinstance(self.run.task, Ranking) and self.settings.download == "rows":
            raise SubflError(
                "method.download: with task=ranking users sample items in each round, and the server cannot know which "
                "rows they need; must be table or auto"
            )

    @cached_property
    def sends_rows(self) -> bool:
        """Whether users are sent the rows that they asked for, instead of the table."""
        settings = self.settings
        if isinstance(self.run.task, Ranking):  # items are sampled anew each round
            return False
        if settings.download != "auto":
            return settings.download == "rows"
        if settings.pseudo_items == "all" or settings.pseudo_refresh:
            return False
        return settings.pseudo_items + float(np.nanmean(self.roster.num_examples)) <= self.num_items / 2

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack | Choice:
        """All parameters; where users are sent rows, all but the item table."""
        if not self.sends_rows:
            return super().instructions(server_round, positions)
        return for_all({name: value for name, value in self.parameters.items() if name != ITEMS}, positions)

    def row_instructions(self, server_round: int, positions: Sequence[int]) -> Mapping[str, Ragged]:
        """The rows of the item table that each user asked for."""
        if not self.sends_rows:
            return {}
        nothing = np.zeros(0, dtype=np.int32)
        wanted = [self._rows_of.get(position, nothing) for position in positions]
        lengths = np.array([len(ids) for ids in wanted], dtype=np.int64)
        return {ROWS: Ragged(self.parameters[ITEMS].numpy()[np.concatenate(wanted)], lengths)}

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Have graphs expanded where it is time, and ask this round's users which rows they need if that is new."""
        settings = self.settings
        since_start = server_round - settings.expansion_start
        if settings.max_neighbours and since_start >= 0 and since_start % settings.expansion_every == 0:
            self._expand(server_round, exchange)
        if self.sends_rows:
            unknown = [p for p in self.participants(server_round) if p not in self._rows_of]
            if unknown:
                most = [np.dtype(np.int32).itemsize * self.num_items + HEADERS] * len(self.roster)
                answers = exchange.ask(WANTED, self._decode_rows, most, sent={position: {} for position in unknown})
                self._rows_of.update((p, ids) for p, ids in enumerate(answers) if ids is not None)

    def _decode_rows(self, answer: Stack) -> np.ndarray:
        ids = answer[IDS]
        if ids.dtype != np.int32 or ids.ndim != 1 or len(ids) > self.num_items:
            raise ValueError(f"{IDS} must be at most {self.num_items} numbers of rows")
        if len(ids) and (ids.min() < 0 or ids.max() >= self.num_items or (np.diff(ids) <= 0).any()):
            raise ValueError(f"{IDS} must be ascending numbers of rows, below {self.num_items}")
        return ids

    # Expansion --------------------------------------------------------------------------------------------------------

    @property
    def _most_bytes_of_box(self) -> list[int]:
        """Tokens of all items and an embedding, padded to a power of two, for each client."""
        plain = TOKEN_BYTES * self.num_items + self.initial[ITEMS].nbytes // self.num_items
        return [2 * plain + HEADERS] * len(self.roster)

    def _expand(self, server_round: int, exchange: Exchange) -> None:
        """Carry users' boxes to the matcher, and its answers back. Training goes on without, if that fails."""
        matcher = self.roster.matcher
        try:
            if matcher is None:
                raise RunFailure("no node is the matcher at the moment")
            about: dict[str, int | bytes] = {"matcher_key": matcher.public_key}
            sealed = exchange.ask(EXPAND, _box, self._most_bytes_of_box, about=about, tolerant=True)
            # The matcher is told a number that stands for the user in this expansion alone.
            numbers = np.random.default_rng().permutation(len(sealed)).tolist()
            boxes = {number: {BOX: box} for number, box in zip(numbers, sealed, strict=True) if box is not None}
            answers = exchange.ask_matcher(MATCH, boxes)
            told = {p: answers[number] for p, number in enumerate(numbers) if number in answers}
            exchange.ask(NEIGHBOURS, _nothing, sent=told, tolerant=True)
        except RunFailure as error:
            log(WARNING, "round %d goes on without an expansion of graphs: %s", server_round, error)

    # What it amounts to -----------------------------------------------------------------------------------------------

    def aggregate(self, updates: Updates) -> None:
        """Step by the mean gradient; watch what uploads give away, where that is asked for."""
        ids, rows = updates.ragged[IDS], updates.ragged[ROWS]
        single = sum(value.size for name, value in self.initial.items() if name != ITEMS)
        self._values_per_upload = max(
            self._values_per_upload, single + int(ids.lengths.max(initial=0)) * rows.values.shape[1]
        )
        if self._audit is not None:
            for row, position in enumerate(updates.positions.tolist()):
                self._audit.add(self.roster.client_ids[position], ids.of(row), rows.of(row))
        super().aggregate(updates)

    def state(self) -> Stack:
        """And how large uploads were."""
        return {**super().state(), "values_per_upload": np.array(self._values_per_upload)}

    def load_state(self, state: Stack) -> None:
        """What `state` gave."""
        super().load_state(state)
        self._values_per_upload = int(state["values_per_upload"])

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """The guarantees of the uploads so far, and what was found out in spite of them."""
        uploads = int(self.uploads.max(initial=0))
        found: dict[str, Any] = {**super().report(prepared), "uploads_per_user": uploads}
        if self.run.privacy.mechanism != "none" and uploads:
            found["privacy"] = {
                **asdict(privacy_report(self.run.privacy, uploads, self._values_per_upload)),
                "covers": "values" if self.settings.pseudo_items != "all" else "values and which rows are sent",
            }
        if self._audit is not None and isinstance(prepared, PreparedRatings):
            ratings = prepared.whole()
            training = ratings.roles == TRAIN
            rated = Ragged(ratings.items[training], ratings.counts(TRAIN))
            audit = self._audit.report({user: rated.of(user) for user in range(len(rated.lengths))})
            found["leakage"] = None if audit is None else asdict(audit)
            if audit is not None and self.settings.max_neighbours:
                # What the matcher counts, against what held-out ratings tell anybody of how popular items are.
                counts, public = (
                    np.bincount(ratings.items[which], minlength=self.num_items) for which in (training, ~training)
                )
                found["leakage"]["popularity_matching"] = popularity_matching(counts, public)
        return found


def _box(answer: Stack) -> np.ndarray:
    box = answer[BOX]
    if box.dtype != np.uint8 or box.ndim != 1:
        raise ValueError("a sealed box is a vector of bytes")
    return box


def _nothing(answer: Stack) -> None:
    if answer:
        raise ValueError("there is nothing to answer")
