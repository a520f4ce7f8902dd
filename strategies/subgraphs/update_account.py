"""Account of protected uploads of subgraph clients: how often each client sent one, and what that guarantees."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from subfl_flower.clients.subgraphs.protected_update import COSINE
from subfl_flower.errors import SubflError
from subfl_flower.privacy.accountant import privacy_report, require_accountant
from subfl_flower.server.updates import Updates
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext, arrays_of

COVERS = "parameters that a client uploads in all rounds, and all that is made of them"
_NOT = ("numbers of nodes, edges and examples", "figures of validation and test examples")


class UpdateAccount:
    """The guarantees of a run's uploads so far; nothing where its clients protect none.

    Args:
        run: facts of the run.
        contract: of the clients.
        num_clients: K.
    """

    def __init__(self, run: RunContext, contract: Contract, num_clients: int) -> None:
        self._privacy = run.privacy
        self._sharing = run.secure_sums.min_clients if run.privacy.in_sum else None
        self._protects = COSINE in contract.metrics
        self._phases = contract.phases
        shared = arrays_of(contract.downloads)
        self._num_values = sum(int(np.prod(spec.shape)) for name, spec in shared.items() if name in run.initial)
        self._uploads = np.zeros(num_clients, dtype=np.int64)
        self._cosines: list[float] = []
        if self._protects:
            require_accountant(run.privacy)

    def watch(self, updates: Updates) -> None:
        """Count a round's uploads."""
        self._uploads[updates.positions] += 1
        cosines = updates.metrics.get(COSINE, np.zeros(0))
        if np.isfinite(cosines).any():
            self._cosines.append(float(np.nanmean(cosines)))

    def report(self) -> dict[str, Any]:
        """The summary's entry ``privacy``: guarantees for the client with most uploads, and the mean cosine."""
        most = int(self._uploads.max(initial=0))
        if not self._protects or not most:
            return {}
        answers = [f"answers to query.{phase}" for phase in self._phases]
        return {
            "privacy": {
                "covers": f"{COVERS}; not {', '.join([*_NOT, *answers])}",
                **asdict(privacy_report(self._privacy, most, self._num_values)),
                "noise_multiplier": self._privacy.noise_multiplier,
                "target_epsilon": self._privacy.target_epsilon,
                **self._share(),
                COSINE: float(np.mean(self._cosines)) if self._cosines else None,
            }
        }

    def _share(self) -> dict[str, Any]:
        """Least number of clients who have the noise together, and the grid of a client's share."""
        if self._sharing is None:
            return {}
        grid = self._privacy.share_of(self._sharing).grid
        return {"noise_of_clients": self._sharing, "grid": None if grid is None else grid.spacing}

    def state(self) -> Stack:
        """Numbers of uploads, cosines, and the scale of the noise."""
        if not self._protects:
            return {}
        return {
            "account.uploads": self._uploads,
            "account.cosines": np.array(self._cosines),
            "account.noise": np.array(self._privacy.noise_scale),
        }

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`.

        Raises:
            SubflError: the run goes on with another noise than its first rounds had.
        """
        if not self._protects:
            return
        before = float(state["account.noise"])
        if not np.isclose(before, self._privacy.noise_scale):
            raise SubflError(
                f"privacy: the run's first rounds had noise of scale {before:g}, and it cannot go on with "
                f"{self._privacy.noise_scale:g}; the account would not be right"
            )
        self._uploads = np.array(state["account.uploads"])
        self._cosines = state["account.cosines"].tolist()
