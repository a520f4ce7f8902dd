r"""Biases of items from sums of all users' ratings, found before the first round and held from then on.

With F(b) the items' sums of :math:`y_{ui} - b_u`, where users have the biases that follow from b, the biases of items
solve :math:`(n_i + s) b_i = F(b)_i`. F is affine, and :math:`A p = (n + s) p - (F(p) - F(0))` symmetric and positive
definite. So the biases are found by conjugate gradients, with n + s as preconditioner: each turn asks for F at one p.
This takes a third of the turns in which users and items would follow each other.
"""

from __future__ import annotations

import secrets
from logging import WARNING
from typing import Any

import numpy as np
import torch

from subfl_flower.clients.recommendation.summed_biases import BIASES, ITEM_BIASES, SUM_BITS, SUMS
from subfl_flower.clients.recommendation.upload_transforms import ATTEMPT, ATTEMPT_BITS, PARTICIPANTS
from subfl_flower.clients.recommendation.user_parts import ITEMS
from subfl_flower.errors import SubflError
from subfl_flower.flower.log import log
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.recommendation.server_model import ServerModel
from subfl_flower.strategies.recommendation.server_parts import HEADERS, Server, ServerPart
from subfl_flower.wire.array_format import Stack

_TOLERANCE = 1e-3
"""Largest change of a bias that a turn by itself would make, in normalised units, at which no turn follows."""

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
        self._turns = self._size = 0
        self._attempt = secrets.randbits(ATTEMPT_BITS)

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
        if (found := self._at(np.zeros(self._num_items), 1, exchange)) is None:
            return
        at_zero, counts = found.reshape(2, -1)
        own = np.rint(counts).clip(min=0) + self.settings.bias_shrinkage
        biases, rest = np.zeros(self._num_items), at_zero
        step = direction = rest / own
        for turn in range(2, _MOST_TURNS + 1):
            self._turns = turn - 1
            if np.abs(step).max(initial=0.0) < _TOLERANCE:
                break
            asked = direction.astype(np.float32).astype(np.float64)
            if (sums := self._at(asked, turn, exchange)) is None:
                return
            product = own * asked - (sums - at_zero)
            length = (rest @ step) / (asked @ product)
            biases, before = biases + length * asked, rest @ step
            rest = rest - length * product
            step = rest / own
            direction = step + (rest @ step) / before * asked
        self._biases = biases

    def _at(self, biases: np.ndarray, turn: int, exchange: Exchange) -> np.ndarray | None:
        """Sums of ratings less users' biases [num_items], and in the first turn counts; None: they cannot be read."""
        present = [p for p in range(len(self.roster)) if self.roster.node_ids[p] is not None]
        if len(present) < 2:
            return None
        ids = np.array([self.roster.client_ids[p] for p in present], dtype=np.int32)
        sent: Stack = {ITEM_BIASES: biases.astype(np.float32), PARTICIPANTS: ids}
        self._size = (2 if turn == 1 else 1) * self._num_items
        most = [8 * self._size + HEADERS] * len(self.roster)
        answers = exchange.ask(
            BIASES,
            self._decode,
            most,
            dict.fromkeys(present, sent),
            about={"turn": turn, ATTEMPT: self._attempt},
            tolerant=True,
        )
        told = [answer for p in present if (answer := answers[p]) is not None]
        if missing := len(present) - len(told):
            reason = "the sums of ratings cannot be read without the %d users who did not answer: biases are learnt"
            log(WARNING, reason, missing)
            return None
        total = np.zeros(self._size, dtype=np.uint64)
        for answer in told:
            total += answer
        return unmask_sum(total, SUM_BITS)

    def _decode(self, answer: Stack) -> np.ndarray:
        found = answer[SUMS]
        if found.dtype != np.uint64 or found.shape != (self._size,):
            raise ValueError(f"{SUMS} must be {self._size} masked numbers")
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
