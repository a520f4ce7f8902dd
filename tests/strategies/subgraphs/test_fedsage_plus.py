"""FedSage+'s server: training of generators of missing neighbours on one another's nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from toy_rounds import strategy_of, toy_roster

import subfl_flower.strategies.subgraphs.fedsage_plus as module
from subfl_flower.strategies.subgraphs.fedsage_plus import FedSagePlus
from subfl_flower.subgraphs.mending.neighbour_generator import NeighbourGenerator, NeighbourGeneratorSettings
from subfl_flower.wire.array_format import Stack

SMALL = NeighbourGeneratorSettings(latent=2, hidden=3, most_neighbours=2)
INITIAL = {"w": np.zeros((2, 2), np.float32)}
ROSTER = toy_roster(10, 30, 60)
GENERATOR = NeighbourGenerator(SMALL, ROSTER.num_features, 0)
SHAPES = {name: GENERATOR.shapes[name] for name in GENERATOR.decoder_names}


def decoder(value: float) -> Stack:
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


def generator(client: int, **changes: np.ndarray) -> Stack:
    """A client's decoder, filled with its id, and embeddings of two nodes."""
    rest = {"noisy": np.zeros((2, 2)), "counts": np.array([0, 2]), "unit": np.array([0.5])}
    types = {"noisy": np.float32, "counts": np.uint8, "unit": np.float32}
    return {**decoder(client), **{name: rest[name].astype(types[name]) for name in rest}, **changes}


def gradient(of: int, by: int) -> float:
    return 100 * of + by


class Asked:
    """Stands for an exchange with three clients, of which some may not answer.

    What client j says of client i's decoder is filled with `gradient(i, j)`.
    """

    def __init__(self, silent: Mapping[str, Sequence[int]] | None = None) -> None:
        self.silent = silent or {}
        self.phases: list[tuple[str, int]] = []
        self.advice: list[dict[int, Stack]] = []
        self.judged: list[dict[int, set[str]]] = []

    def ask(
        self,
        action: str,
        decode: Callable[[Stack], Any],
        largest: Sequence[int] | None = None,
        sent: Mapping[int, Stack] | None = None,
        about: Mapping[str, int] | None = None,
    ) -> list[Any]:
        assert sent is not None
        last = (about or {}).get("last", 0)
        self.phases.append((action, last))
        if action == "generator":
            self.advice.append(dict(sent))
        else:
            self.judged.append(
                {position: {name.partition("/")[0] for name in stack} for position, stack in sent.items()}
            )
        found: list[Any] = [None] * len(ROSTER)
        for position in sent:
            if position not in self.silent.get(action, ()):
                stack = self._answer(action, position, sent[position], last)
                if largest is not None:
                    assert sum(values.nbytes for values in stack.values()) <= largest[position]
                found[position] = decode(stack)
        return found

    def _answer(self, action: str, position: int, received: Stack, last: int) -> Stack:
        client = ROSTER.client_ids[position]
        if action == "generator":
            figures = np.array([4 * position, 1.0 + position, 2.0, 3.0, 5.0 * position])
            return {"figures": figures} if last else generator(client)
        others = dict.fromkeys(int(name.partition("/")[0]) for name in received)
        return {
            f"{other}/{name}": values for other in others for name, values in decoder(gradient(other, client)).items()
        }


def fedsage_plus(**settings: Any) -> FedSagePlus:
    return strategy_of(FedSagePlus, ROSTER, INITIAL, {"generator": SMALL, "exchanges": 2, **settings})


def advised(stacks: Mapping[int, Stack]) -> list[float | None]:
    """The value that fills each client's advice."""
    found: list[float | None] = []
    for position in range(len(ROSTER)):
        stack = stacks[position]
        assert not stack or (set(stack) == set(SHAPES) and len({v for a in stack.values() for v in a.flat}) == 1)
        found.append(float(next(iter(stack.values())).flat[0]) if stack else None)
    return found


def test_every_generator_is_advised_by_the_mean_of_what_all_others_say() -> None:
    exchange = Asked()
    fedsage_plus().set_up(exchange)  # type: ignore[arg-type]
    a, b, c = ROSTER.client_ids
    assert exchange.phases == [("generator", 0), ("gradients", 0)] * 2 + [("generator", 1)]
    means = [100 * a + (b + c) / 2, 100 * b + (a + c) / 2, 100 * c + (a + b) / 2]
    assert [advised(stacks) for stacks in exchange.advice] == [[None] * 3, means, means]
    everyone = [{str(other) for other in ROSTER.client_ids if other != client} for client in ROSTER.client_ids]
    assert exchange.judged == [dict(enumerate(everyone))] * 2


def test_nobody_is_asked_about_others_without_exchanges() -> None:
    exchange = Asked()
    fedsage_plus(exchanges=0).set_up(exchange)  # type: ignore[arg-type]
    assert exchange.phases == [("generator", 1)]


def test_who_does_not_answer_is_neither_judged_nor_judge() -> None:
    a, b, c = ROSTER.client_ids
    exchange = Asked({"generator": [2]})
    strategy = fedsage_plus(exchanges=1)
    strategy.set_up(exchange)  # type: ignore[arg-type]
    assert exchange.judged == [{0: {str(b)}, 1: {str(a)}, 2: {str(a), str(b)}}]
    assert advised(exchange.advice[-1]) == [100 * a + (b + c) / 2, 100 * b + (a + c) / 2, None]
    assert strategy.report(None)["generator"]["clients_measured"] == 1

    exchange = Asked({"gradients": [1]})
    fedsage_plus(exchanges=1).set_up(exchange)  # type: ignore[arg-type]
    assert advised(exchange.advice[-1]) == [gradient(a, c), 100 * b + (a + c) / 2, gradient(c, a)]


class Vain(Asked):
    """Every client also judges its own decoder, which it was not asked about."""

    def _answer(self, action: str, position: int, received: Stack, last: int) -> Stack:
        said = super()._answer(action, position, received, last)
        if action == "generator":
            return said
        own = ROSTER.client_ids[position]
        return {**said, **{f"{own}/{name}": values for name, values in decoder(1e6).items()}}

    def ask(self, *arguments: Any, **named: Any) -> list[Any]:
        return super().ask(arguments[0], arguments[1], None, *arguments[3:], **named)


def test_nobody_judges_itself() -> None:
    modest, vain = Asked(), Vain()
    fedsage_plus(exchanges=1).set_up(modest)  # type: ignore[arg-type]
    fedsage_plus(exchanges=1).set_up(vain)  # type: ignore[arg-type]
    assert advised(vain.advice[-1]) == advised(modest.advice[-1])


def test_large_federations_are_judged_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = Asked(), Asked()
    fedsage_plus(exchanges=1).set_up(whole)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "_IN_FLIGHT", 1)
    fedsage_plus(exchanges=1).set_up(parts)  # type: ignore[arg-type]
    assert len(whole.judged) == 1 and len(parts.judged) == 3
    assert all(len(set.union(*judged.values())) == 1 for judged in parts.judged)
    assert advised(parts.advice[-1]) == advised(whole.advice[-1])


def test_the_summary_has_means_over_the_clients_that_could_be_measured() -> None:
    strategy = fedsage_plus()
    strategy.set_up(Asked())  # type: ignore[arg-type]
    expected = {"clients_measured": 2, "distance": 2.5, "distance_of_mean": 2.0, "distance_of_neighbours": 3.0}
    assert strategy.report(None)["generator"] == {**expected, "generated_nodes": 5.0}
    resumed = fedsage_plus()
    assert resumed.report(None)["generator"]["distance"] is None
    resumed.load_state(strategy.state())
    assert resumed.report(None) == strategy.report(None)


NAN = np.float32("nan")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"figures": np.zeros(5)}, "it holds figures"),
        ({name: v for name, v in generator(1).items() if name != "unit"}, "it holds counts, heads"),
        (generator(1, noisy=np.zeros((3, 2), np.float32)), r"noisy must be finite float32 \[2, 2\]"),
        (generator(1, noisy=np.full((2, 2), NAN)), "noisy must be finite"),
        (generator(1, noisy=np.zeros((2, 2))), "noisy must be finite float32"),
        (generator(1, counts=np.array([0, 3], np.uint8)), "counts must be whole numbers up to 2"),
        (generator(1, counts=np.array([0.0, 1.0])), "counts must be whole numbers up to 2"),
        (generator(1, counts=np.zeros(0, np.uint8), noisy=np.zeros((0, 2), np.float32)), "counts must be"),
        (generator(1, unit=np.zeros(1, np.float32)), "unit must be more than 0"),
        (generator(1, **{"output.bias": np.zeros((7, 7), np.float32)}), r"output\.bias must be finite float32"),
    ],
)
def test_a_generator_that_is_none_is_refused(answer: Stack, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        module._generator(answer, SHAPES, SMALL.latent, SMALL.most_neighbours)


def of_others(*clients: int, **changes: np.ndarray) -> Stack:
    stacks = {f"{client}/{name}": values for client in clients for name, values in decoder(1).items()}
    return {**stacks, **changes}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (of_others(7, 9), "it does not hold whole decoders: 9/"),
        ({name: v for name, v in of_others(7).items() if "bias" not in name}, "whole decoders: 7/heads.bias"),
        (of_others(7, **{"7/surprise": np.ones(1)}), "whole decoders: 7/surprise"),
        (of_others(7, **{"7/heads.bias": np.full(SHAPES["heads.bias"], NAN)}), r"7/heads\.bias must be finite"),
        (of_others(7, **{"7/heads.bias": np.ones(1, np.float32)}), r"7/heads\.bias must be finite float32"),
    ],
)
def test_gradients_that_are_none_are_refused(answer: Stack, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        module._gradients(answer, SHAPES, {7: 0, 8: 1})


def test_gradients_of_some_are_taken_for_whom_they_are_of() -> None:
    found = module._gradients(of_others(8), SHAPES, {7: 0, 8: 1})
    assert list(found) == [1] and set(found[1]) == set(SHAPES)
    assert module._gradients({}, SHAPES, {7: 0, 8: 1}) == {}


@pytest.mark.parametrize("figures", [np.zeros(4), np.zeros(5, np.float32), np.zeros((5, 1))])
def test_figures_that_are_none_are_refused(figures: np.ndarray) -> None:
    with pytest.raises(ValueError, match="figures must be 5 numbers"):
        module._figures({"figures": figures})
