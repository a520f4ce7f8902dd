"""Rounds in which only some clients take part: who they are, what is recorded of them and of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from run_outcomes import Outcome, run_inline

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.server.participation import Participation

CLIENTS, ROUNDS, FRACTION = 10, 5, 0.4
SMALL = (
    *("dataset=digits", "model.hidden=16", f"federation.rounds={ROUNDS}", f"federation.fraction={FRACTION}"),
    "record.mixing_every=1",
)
METHODS = {
    "local": (),
    "fedavg": (),
    "fedprox": (),
    "fedper": (),
    "gcfl": ("method.first_split=2", "method.epsilon1=10"),
    "fedpub": ("method.random_blocks=2", "method.random_block_nodes=20"),
    "subpfed": ("partition=overlap_rate",),
    "oracle": (),
}
FURTHER = ("test.macro_f1", "test.balanced_accuracy", "test.majority", "test.one_class")
FIGURES = ("validation", "test", "validation_as_received", "test_as_received", "train_loss", *FURTHER)
Runs = tuple[str, Outcome, Outcome]


def drawn(method: str, seed: int = 0) -> list[list[int]]:
    """Clients that take part in each round."""
    if method == "oracle":
        return [list(range(CLIENTS))] * ROUNDS
    return [list(Participation(FRACTION, seed).draw(r, CLIENTS)) for r in range(1, ROUNDS + 1)]


@pytest.fixture(scope="module", params=METHODS)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A method, its run on one node, and the same on three."""
    folder, method = tmp_path_factory.mktemp(request.param), request.param
    overrides = (*SMALL, f"method={method}", *METHODS[method])
    one = run_inline(folder / "one", *overrides, "runtime.nodes=1", "runtime.chunk=1")
    return method, one, run_inline(folder / "three", *overrides, "runtime.nodes=3", "runtime.chunk=all")


def last_figures(rounds: list[dict[str, Any]]) -> Iterator[dict[str, dict[int, float]]]:
    """After every round, each figure of every client that took part so far."""
    latest: dict[str, dict[int, float]] = {name: {} for name in FIGURES}
    for record in rounds:
        for name in FIGURES:
            for client, value in zip(record["clients"]["ids"], record["clients"][name], strict=True):
                latest[name][client] = value
        yield {name: dict(values) for name, values in latest.items()}


def test_a_round_lists_the_clients_that_were_drawn(runs: Runs) -> None:
    method, one, _ = runs
    assert [record["clients"]["ids"] for record in one.rounds] == drawn(method)
    for record in one.rounds:
        assert {len(values) for values in record["clients"].values()} == {CLIENTS if method == "oracle" else 4}
        assert record["bytes_up"] == sum(record["clients"]["bytes_up"])
        assert record["bytes_down"] == sum(record["clients"]["bytes_down"])
        assert record["failures"] == {}


def test_placement_changes_nothing(runs: Runs) -> None:
    _, one, three = runs
    for name in FIGURES:
        np.testing.assert_allclose(three.values(name), one.values(name), atol=1e-4, err_msg=name)
    for record, expected in zip(three.rounds, one.rounds, strict=True):
        for name in ("ids", "num_examples", "bytes_down"):
            assert record["clients"][name] == expected["clients"][name]
    assert sorted(three.mixing) == sorted(one.mixing)
    for server_round, matrix in three.mixing.items():
        np.testing.assert_allclose(matrix, one.mixing[server_round], atol=1e-4)


def test_means_are_over_the_last_known_figures_of_the_clients_heard_so_far(runs: Runs) -> None:
    _, one, _ = runs
    heard = []
    for record, latest in zip(one.rounds, last_figures(one.rounds), strict=True):
        for name in FIGURES:
            means = record["figures"] if name in FURTHER else record
            assert means[name] == pytest.approx(np.mean(list(latest[name].values())), abs=1e-9), name
        heard.append(len(latest["test"]))
        assert record["clients_heard"] == heard[-1]
    assert heard == sorted(heard) and heard[-1] > 4


def test_the_summary_is_of_every_client_heard(runs: Runs) -> None:
    _, one, _ = runs
    history = list(last_figures(one.rounds))
    best = one.summary["best_round"]
    assert one.rounds[best - 1]["clients_heard"] == len(history[-1]["test"])  # not a round of a few easy clients
    per_client = one.summary["per_client"]
    for name in ("validation", "test"):
        known = history[best - 1][name]
        assert dict(zip(per_client["ids"], per_client[f"{name}_at_best_validation"], strict=True)) == known
        assert sorted(known) == sorted(history[-1][name])
    assert one.summary["test_at_best_validation"] == one.rounds[best - 1]["test"]
    assert one.summary["figures"] == one.rounds[best - 1]["figures"]
    known = history[best - 1]["test"]
    assert one.summary["worst_client"]["test"] == known[one.summary["worst_client"]["client"]] == min(known.values())
    assert sorted(one.models()) == sorted(history[-1]["test"])


def test_bytes_are_those_of_rounds_and_of_what_was_asked_before(runs: Runs) -> None:
    method, one, three = runs
    asked = one.summary["exchanges"]
    assert [phase["action"] for phase in asked] == (["structure"] if method == "subpfed" else [])
    assert all(phase["bytes_up"] > 0 and phase["bytes_down"] == 0 for phase in asked)
    for direction in ("bytes_up", "bytes_down"):
        before = sum(phase[direction] for phase in asked)
        assert one.summary[direction] == before + sum(record[direction] for record in one.rounds)
        assert before == sum(phase[direction] for phase in three.summary["exchanges"])
    assert (one.summary["bytes_up"] == one.summary["bytes_down"] == 0) == (method == "oracle")


def test_mixing_is_over_the_clients_that_took_part(runs: Runs) -> None:
    method, one, _ = runs
    if method == "oracle":
        assert not one.mixing
        return
    assert sorted(one.mixing) == list(range(1, ROUNDS + 1))
    for present, matrix in zip(drawn(method), one.mixing.values(), strict=True):
        absent = [client for client in range(CLIENTS) if client not in present]
        assert not matrix[:, absent].any()
        np.testing.assert_allclose(matrix[present].sum(1), 1.0, atol=1e-5)


def test_an_absent_client_keeps_its_model_until_it_is_drawn_again(inline_run: Callable[..., Outcome]) -> None:
    """Local training: what a client starts a round with is what it ended its last one with, however long ago."""
    outcome = inline_run(*SMALL, "method=local", "federation.rounds=10")
    latest: dict[int, tuple[int, float, float]] = {}
    waited = []
    for record in outcome.rounds:
        clients = record["clients"]
        for row, client in enumerate(clients["ids"]):
            if client in latest:
                before, validation, test = latest[client]
                assert clients["validation_as_received"][row] == validation and clients["test_as_received"][row] == test
                waited.append(record["round"] - before)
            latest[client] = (record["round"], clients["validation"][row], clients["test"][row])
    assert len(latest) == CLIENTS and max(waited) > 1
    assert len({test for _, _, test in latest.values()}) > 1


def test_another_seed_draws_others(inline_run: Callable[..., Outcome]) -> None:
    outcome = inline_run(*SMALL, "method=local", "seed=1", "record.client_models=false")
    assert [record["clients"]["ids"] for record in outcome.rounds] == drawn("local", seed=1) != drawn("local", seed=0)


@pytest.mark.parametrize("fraction", ["0", "1.5", "-0.4", "nan", "all"])
def test_a_fraction_out_of_range_is_refused_in_one_sentence(fraction: str) -> None:
    with pytest.raises(SubflError, match=r"^federation\.fraction: .*found .*") as error:
        composed_config([f"federation.fraction={fraction}"])
    assert "\n" not in str(error.value)
