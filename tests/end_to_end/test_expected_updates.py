"""What strategies say that clients send is what clients send, for every method and the knobs that change it."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_outcomes import SMALL_GENERATOR, method_names, run_inline

from subfl_flower.errors import RunFailure
from subfl_flower.runtime.strategy import CohortStrategy

METHODS = method_names("graph")
SIMILARITIES = ("functional", "parameter", "gradient", "label", "none")
VARIANTS = [
    *((method, *(SMALL_GENERATOR if method == "fedsage_plus" else ())) for method in METHODS),
    *((method, f"method.similarity={kind}") for method in ("fedpub", "subpfed") for kind in SIMILARITIES),
    ("fedpub", "method.masks=false"),
    ("fedpub", "+method.personal_layers=[conv1]"),
    ("subpfed", "+method.personal_layers=[conv1,conv2]"),
    ("gcfl", "task=link_prediction"),
]


@pytest.mark.parametrize("overrides", VARIANTS, ids=" ".join)
def test_the_arrays_of_every_method_are_those_that_its_strategy_expects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    strategies: list[CohortStrategy] = []
    aggregate_train = CohortStrategy.aggregate_train

    def noted(self: CohortStrategy, *arguments: object) -> object:
        strategies.append(self)
        return aggregate_train(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CohortStrategy, "aggregate_train", noted)
    method, *rest = overrides
    partition = ("partition=overlap_rate", "partition.rate=0.2") if method == "subpfed" else ()
    fast = ("method.random_blocks=2", "method.random_block_nodes=20") if method.startswith("fedpub") else ()
    outcome = run_inline(
        tmp_path / "run",
        *("dataset=digits", f"method={method}", "model.hidden=8", "federation.rounds=1", "runtime.nodes=2"),
        *partition,
        *fast,
        *rest,
    )
    (strategy,) = strategies
    assert outcome.rounds[0]["failures"] == {} and len(outcome.rounds[0]["clients"]["ids"]) == len(strategy.roster)
    expected, updates = strategy.expected, strategy.updates
    assert expected is not None and updates is not None and list(updates.arrays) == list(expected)
    for name, values in updates.arrays.items():
        assert (values.shape[1:], str(values.dtype)) == (expected[name].shape, expected[name].dtype)


def test_a_client_family_that_sends_more_than_the_strategy_knows_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(
        RunFailure,
        match=r"^client \d failed in round 1: its node's reply cannot be read: it holds functional_embedding, "
        r"wanted_features, where only conv1.weight, .*, classifier.bias belongs$",
    ):
        run_inline(
            tmp_path / "run",
            *("dataset=digits", "method=fedavg", "method.client=clients.masked.MaskedClient", "model.hidden=8"),
        )
