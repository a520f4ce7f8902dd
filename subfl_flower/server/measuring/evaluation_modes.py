"""Evaluation modes of a simulation: which model, on whose test examples.

Models are those of the best round (`evaluation.summary.best_record`): the *personal* model of each client is the one
after its local training, and the *global* model is the mean of all personal ones, weighted by training examples, which
in FedAvg is what clients are sent next. Test examples are a client's *own*, or those of *all* clients together, each on
the graph of its client. On all examples the metric is computed once, so that clients with more of them count for more;
on own ones it is the mean over clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from subfl_flower.node.cross_measured import LAST_MODEL, TEST_OUTPUTS
from subfl_flower.seeding import shared_generator
from subfl_flower.server.exchange import Exchange
from subfl_flower.tasks.settings import GraphTask
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.roster import Roster

MOST_MODELS = 50
"""Most personal models that are measured on all clients' examples; of more clients so many are drawn."""

_STATE = "evaluation_modes."


class EvaluationModes:
    """The models of the best round so far, and their figures.

    Args:
        task: measures outputs of several clients together.
        seed: of the run.
        most_models: see `MOST_MODELS`.
    """

    def __init__(self, task: GraphTask, seed: int, most_models: int = MOST_MODELS) -> None:
        self._task, self._seed, self._most = task, seed, most_models
        self._models: dict[int, Stack] = {}
        self._round = 0

    def take(self, exchange: Exchange, server_round: int) -> None:
        """Fetch all clients' models after a round that is the best so far."""
        answers = exchange.ask(LAST_MODEL, dict)
        self._models = {position: model for position, model in enumerate(answers) if model}
        self._round = server_round

    def report(self, exchange: Exchange) -> dict[str, Any] | None:
        """The figures of the best round; None where there was none.

        Returns:
            ``round``; ``global_on_own``, ``global_on_all``, ``personal_on_own`` and ``personal_on_all``, which is the
            mean over personal models; ``models``, the number of these; and under ``clients`` the three figures that
            each client has, None where it has none.
        """
        if not self._models:
            return None
        roster, held = exchange.roster, sorted(self._models)
        everyone = range(len(roster))
        mean, drawn = mean_model(self._models, roster), self._drawn(held)
        own_of_global, of_global = self._measured(exchange, dict.fromkeys(everyone, mean))
        own, _ = self._measured(exchange, self._models)
        on_all = {p: self._measured(exchange, dict.fromkeys(everyone, self._models[p]))[1] for p in drawn}
        clients = {"global_on_own": own_of_global, "personal_on_own": own, "personal_on_all": on_all}
        return {
            "round": self._round,
            "global_on_own": _mean(own_of_global),
            "global_on_all": _known(of_global),
            "personal_on_own": _mean(own),
            "personal_on_all": _mean(on_all),
            "models": len(drawn),
            "clients": {
                "ids": list(roster.client_ids),
                **{name: [_known(found.get(p)) for p in everyone] for name, found in clients.items()},
            },
        }

    def _drawn(self, held: list[int]) -> list[int]:
        """The clients whose models are measured on all examples."""
        if len(held) <= self._most:
            return held
        generator = shared_generator(self._seed, "models measured on all examples")
        return sorted(generator.choice(held, self._most, replace=False).tolist())

    def _measured(self, exchange: Exchange, models: Mapping[int, Stack]) -> tuple[dict[int, float], float]:
        """The metric on each asked client's examples, and on those of all of them together."""
        answers = [answer for answer in enumerate(exchange.ask(TEST_OUTPUTS, dict, sent=models)) if answer[1]]
        found = {p: (answer["outputs"], answer["truth"]) for p, answer in answers if answer and len(answer["truth"])}
        if not found:
            return {}, float("nan")
        outputs, truth = (np.concatenate(parts) for parts in zip(*found.values(), strict=True))
        return {p: self._task.measured(*own) for p, own in found.items()}, self._task.measured(outputs, truth)

    def state(self) -> Stack:
        """Arrays for a checkpoint."""
        arrays: Stack = {f"{_STATE}round": np.array(self._round)}
        for position, model in self._models.items():
            arrays |= {f"{_STATE}{position}.{name}": value for name, value in model.items()}
        return arrays

    def load_state(self, state: Stack) -> Stack:
        """Restore the arrays of `state`; those that are of something else."""
        own = {name.removeprefix(_STATE): value for name, value in state.items() if name.startswith(_STATE)}
        self._round, self._models = int(own.pop("round", np.array(0))), {}
        for name, value in own.items():
            position, _, parameter = name.partition(".")
            self._models.setdefault(int(position), {})[parameter] = value
        return {name: value for name, value in state.items() if not name.startswith(_STATE)}


def mean_model(models: Mapping[int, Stack], roster: Roster) -> Stack:
    """The mean of models by position in the roster, weighted by their clients' training examples."""
    weights = np.array([float(roster.num_examples[position]) for position in models])
    weights /= weights.sum()
    first = next(iter(models.values()))
    return {
        name: np.tensordot(weights, np.stack([model[name] for model in models.values()]), 1).astype(first[name].dtype)
        for name in first
    }


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _mean(found: Mapping[int, float]) -> float | None:
    known = [value for value in found.values() if not np.isnan(value)]
    return float(np.mean(known)) if known else None
