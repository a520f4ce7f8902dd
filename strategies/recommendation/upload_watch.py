"""Observers of uploads: their privacy guarantees, and their leakage in spite of these."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from subfl_flower.clients.recommendation.user_parts import IDS, ITEMS, ROWS
from subfl_flower.clients.recommendation.users import rated_items
from subfl_flower.data.graph import TRAIN
from subfl_flower.privacy.accountant import privacy_report, require_accountant
from subfl_flower.privacy.leakage import LeakageAudit, popularity_matching
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.server_parts import Server, ServerPart
from subfl_flower.wire.array_format import Stack


class PrivacyAccount(ServerPart):
    """Report the guarantees of the uploads so far (settings: `PseudoItemSettings`)."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        require_accountant(self.run.privacy)
        self._values_per_upload = 0

    def watch(self, updates: Updates) -> None:
        """Measure the largest upload."""
        if updates.sums:  # nobody sees how many rows a user sends
            self._values_per_upload = sum(value.size for value in self.run.initial.values())
            return
        single = sum(value.size for name, value in self.run.initial.items() if name != ITEMS)
        lengths, width = updates.ragged[IDS].lengths, updates.ragged[ROWS].values.shape[1]
        self._values_per_upload = max(self._values_per_upload, single + int(lengths.max(initial=0)) * width)

    def report(self, prepared: Any | None, uploads: int) -> dict[str, Any]:
        """The largest number of uploads of a user, and the guarantee of `privacy` for these."""
        found: dict[str, Any] = {"uploads_per_user": uploads}
        if self.run.privacy.mechanism != "none" and uploads:
            found["privacy"] = {
                **asdict(privacy_report(self.run.privacy, uploads, self._values_per_upload)),
                "covers": "values" if self.settings.pseudo_items != "all" else "values and which rows are sent",
            }
        return found

    def state(self) -> Stack:
        """Number of values in the largest upload."""
        return {"values_per_upload": np.array(self._values_per_upload)}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        self._values_per_upload = int(state["values_per_upload"])


class Audit(ServerPart):
    """Watch some users' uploads for leakage (settings: `AuditSettings`, `ExpansionSettings`)."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._num_items, watched = len(self.run.initial[ITEMS]), self.settings.audit_users
        self._audit = LeakageAudit(self._num_items, watched) if watched else None

    def watch(self, updates: Updates) -> None:
        """Add the uploads to the audit."""
        if self._audit is None:
            return
        ids, rows = updates.ragged[IDS], updates.ragged[ROWS]
        for row, position in enumerate(updates.positions.tolist()):
            self._audit.add(self.roster.client_ids[position], ids.of(row), rows.of(row))

    def report(self, prepared: Any | None, uploads: int) -> dict[str, Any]:
        """The audit's findings, in a simulation."""
        if self._audit is None or prepared is None:
            return {}
        ratings = prepared.whole()
        rated = rated_items(ratings)
        audit = self._audit.report({user: rated.of(user) for user in range(len(rated.lengths))})
        found: dict[str, Any] = {"leakage": None if audit is None else asdict(audit)}
        if audit is not None and self.settings.max_neighbours:
            # The matcher's counts, compared with the popularity of items in held-out ratings, which anybody may know.
            training = ratings.roles == TRAIN
            counts, public = (
                np.bincount(ratings.items[which], minlength=self._num_items) for which in (training, ~training)
            )
            found["leakage"]["popularity_matching"] = popularity_matching(counts, public)
        return found
