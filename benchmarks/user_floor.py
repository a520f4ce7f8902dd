"""Rounds of a floor whose clients are users: a few are drawn and train one after another; then the server steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch


@dataclass(frozen=True)
class UserFloorRound:
    """One round: its number, its users' figures after it, and its duration.

    Attributes:
        round: from 1.
        validation: the floor's figure on validation ratings; None where the round was not evaluated.
        test: likewise on test ratings.
        train_loss: mean over users of the loss before its last step.
        seconds: seconds of the round and its parts.
    """

    round: int
    validation: float | None
    test: float | None
    train_loss: float
    seconds: dict[str, float]


OnRound = Callable[[UserFloorRound], None]
User = TypeVar("User", contravariant=True)


class Server(Protocol[User]):
    """State shared by the users of a floor."""

    def collect(self, users: Sequence[User]) -> list[float]:
        """Train users and sum up their contributions; return every user's loss."""

    def step(self, users: int) -> None:
        """Step along the mean contribution of `users` users."""


def run_user_floor(
    server: Server[User],
    users: Sequence[User],
    users_per_round: int,
    rounds: int,
    figures: Callable[[int, Sequence[User]], tuple[float | None, float | None]],
    on_round: OnRound,
) -> list[UserFloorRound]:
    """Train for some rounds; participation is drawn from PyTorch's generator.

    Args:
        server: state shared by the users.
        users: all users.
        users_per_round: number of users in a round; all where there are fewer.
        rounds: number of rounds.
        figures: validation and test figure after a round, of its number and its users.
        on_round: called after every round.
    """
    history = []
    for server_round in range(1, rounds + 1):
        start = time.perf_counter()
        drawn = [users[position] for position in torch.randperm(len(users))[:users_per_round].tolist()]
        losses = server.collect(drawn)
        trained = time.perf_counter()
        server.step(len(drawn))
        stepped = time.perf_counter()
        validation, test = figures(server_round, drawn)
        end = time.perf_counter()
        record = UserFloorRound(
            round=server_round,
            validation=validation,
            test=test,
            train_loss=float(np.mean(losses)),
            seconds={
                "round": end - start,
                "client": end - start - (stepped - trained),
                "server": stepped - trained,
                "transport": 0.0,
            },
        )
        history.append(record)
        on_round(record)
    return history
