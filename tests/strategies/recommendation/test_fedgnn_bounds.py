"""Largest answers that FedGNN's server takes outside of rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.privacy.expansion import sealed_request
from subfl_flower.privacy.sealed_box import MatcherKey
from subfl_flower.privacy.tokens import item_tokens
from subfl_flower.strategies.recommendation.fedgnn import FedGNN
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Matcher, Roster


class Listening:
    """An exchange whose clients have no answer; remembers how large it may be."""

    def __init__(self) -> None:
        self.largest: dict[str, Any] = {}

    def ask(self, action: str, decode: object, largest: Any = None, *_: object, **about: object) -> list[None]:
        self.largest[action] = largest
        return [None, None]

    def ask_matcher(self, action: str, sent: dict[int, Any]) -> dict[int, Any]:
        assert not sent
        return {}


@pytest.mark.parametrize(("num_items", "width"), [(3, 4), (50, 8), (1000, 32)])
def test_a_box_of_all_items_fits_and_one_four_times_as_large_does_not(num_items: int, width: int) -> None:
    key = MatcherKey.generate()
    roster = Roster((0, 1), (1, 1), *[np.ones(2)] * 3, num_items, 0, False, Matcher(2, key.public))
    initial = {"items": np.zeros((num_items, width + 1), np.float32), "bias": np.zeros(1, np.float32)}
    settings = FedGNN.Settings(max_neighbours=2, pseudo_items=0, download="rows")
    model = RecommenderSettings(name="recommender", dim=width)
    strategy = FedGNN(RunContext(settings=settings, model=model, initial=initial), roster)
    exchange = Listening()
    strategy.before_round(1, exchange)  # type: ignore[arg-type]
    tokens = item_tokens(np.arange(num_items), bytes(32), b"run")
    box, _ = sealed_request(tokens, np.zeros(width, np.float32), key.public, b"context")
    header = 128
    assert all(len(box) + header <= most < 4 * len(box) + 2 * 4096 for most in exchange.largest["expand"])
    ids = np.arange(num_items, dtype=np.int32)
    assert all(ids.nbytes + header <= most <= ids.nbytes + 4096 for most in exchange.largest["rows"])
