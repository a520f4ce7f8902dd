"""Biases of items from sums of all users' ratings, found before the first round and held from then on."""

from __future__ import annotations

from logging import WARNING
from typing import Any

import numpy as np
import torch

from subfl_flower.clients.recommendation.summed_biases import BIASES, ITEM_BIASES, SUM_BITS, SUMS
from subfl_flower.clients.recommendation.upload_transforms import PARTICIPANTS
from subfl_flower.clients.recommendation.user_parts import ITEMS
from subfl_flower.errors import SubflError
from subfl_flower.flower.log import log
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.recommendation.server_model import ServerModel
from subfl_flower.strategies.recommendation.server_parts import HEADERS, Server, ServerPart
from subfl_flower.wire.array_format import Stack

_TOLERANCE = 1e-3
"""Largest change of a bias, in normalised units, after which no further turn is taken."""

_MOST_TURNS = 30


class SummedBiases(ServerPart):
    """Ask for sums of ratings until the items' biases converge, and hold these (settings: `BiasSettings`).

    A sum cannot be read without all users' masks. Where a user does not answer, there is another attempt before the
    next round, and until one succeeds biases are learnt.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._num_items = len(self.run.initial[ITEMS])
        self._biases: np.ndarray | None = None
        self._turns = 0

    def set_up(self) -> None:
        """Refuse sums that the run's privacy would not cover, and sums for a model without biases."""
        if self.settings.biases != "summed":
            return
        if self.run.privacy.mechanism != "none":
            raise SubflError(
                f"method.biases=summed: the noise of privacy={self.run.privacy.mechanism} does not cover sums of "
                "ratings; must be auto or learnt"
            )
        if not self._rates:
            raise SubflError("method.biases=summed: a model that ranks items has no biases; must be auto or learnt")

    @property
    def _rates(self) -> bool:
        return self.run.model is not None and not self.run.model.ranks

    @property
    def _wanted(self) -> bool:
        return self.settings.biases != "learnt" and self._rates and self.run.privacy.mechanism == "none"

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Find the items' biases, unless they are known."""
        if not self._wanted or self._biases is not None:
            return
        biases = np.zeros(self._num_items)
        counts = None
        for turn in range(1, _MOST_TURNS + 1):
            total = self._sum(biases, turn, exchange)
            if total is None:
                return
            sums, counts = total
            found = sums / (counts + self.settings.bias_shrinkage)
            change, biases, self._turns = np.abs(found - biases).max(initial=0.0), found, turn
            if change < _TOLERANCE:
                break
        self._biases = biases

    def _sum(self, biases: np.ndarray, turn: int, exchange: Exchange) -> tuple[np.ndarray, np.ndarray] | None:
        """Sums and counts [num_items] over all users, given the items' biases; None where they cannot be read."""
        present = [p for p in range(len(self.roster)) if self.roster.node_ids[p] is not None]
        if len(present) < 2:
            return None
        ids = np.array([self.roster.client_ids[p] for p in present], dtype=np.int32)
        sent: Stack = {ITEM_BIASES: biases.astype(np.float32), PARTICIPANTS: ids}
        most = [8 * 2 * self._num_items + HEADERS] * len(self.roster)
        answers = exchange.ask(
            BIASES, self._decode, most, dict.fromkeys(present, sent), about={"turn": turn}, tolerant=True
        )
        told = [answers[p] for p in present]
        missing = sum(answer is None for answer in told)
        if missing:
            log(
                WARNING,
                "the sums of ratings cannot be read without the %d users who did not answer: biases are learnt",
                missing,
            )
            return None
        total = np.zeros(2 * self._num_items, dtype=np.uint64)
        for answer in told:
            total += answer
        sums, counts = unmask_sum(total, SUM_BITS).reshape(2, -1)
        return sums, np.rint(counts).clip(min=0)

    def _decode(self, answer: Stack) -> np.ndarray:
        found = answer[SUMS]
        if found.dtype != np.uint64 or found.shape != (2 * self._num_items,):
            raise ValueError(f"{SUMS} must be {2 * self._num_items} masked numbers")
        return found

    @property
    def announcements(self) -> dict[str, float]:
        """1 once the items' biases are held: users then hold theirs, too."""
        return {} if self._biases is None else {BIASES: 1.0}

    def settle(self, model: ServerModel) -> None:
        """Set the items' biases, and no global one: ratings are centred."""
        if self._biases is None:
            return
        found = torch.from_numpy(self._biases).float()
        for parameters in (model.parameters, model.evaluated):
            parameters[ITEMS][:, -1] = found
            parameters["bias"].zero_()

    def report(self, prepared: Any | None, uploads: int) -> dict[str, Any]:
        """How the biases were found."""
        return {} if self._biases is None else {"summed_biases": {"turns": self._turns}}

    def state(self) -> Stack:
        """The items' biases, NaN where they are not known, and the number of turns."""
        unknown = np.full(self._num_items, np.nan)
        return {"biases": unknown if self._biases is None else self._biases, "turns": np.array(self._turns)}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        biases = np.array(state["biases"])
        self._biases = None if np.isnan(biases).any() else biases
        self._turns = int(state["turns"])
