"""Every method that ships: same numbers wherever its clients run, and a mixing matrix whose rows sum to one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from run_outcomes import SMALL_GENERATOR, Outcome, command, method_names, run_inline

from subfl_flower.composition import config_directory
from subfl_flower.models.settings import ModelSettings
from subfl_flower.subgraphs.models.gcn import StackedGCN

METHODS = method_names("graph")
FEDERATION = (
    *("dataset=digits", "partition=overlap_rate", "partition.rate=0.3", "model.hidden=16"),
    *("federation.rounds=3", "federation.local_epochs=2", "record.mixing_every=1"),
)
SPLITTING = ("method.first_split=2", "method.epsilon1=2")
"""A cluster is halved whenever it may be, so that three rounds see it."""
KNOBS = {"gcfl": SPLITTING, "gcfl_plus": (*SPLITTING, "method.window=2"), "fedsage_plus": SMALL_GENERATOR}
UNDER_RAY = ("subpfed", *(pytest.param(method, marks=pytest.mark.slow) for method in ("gcfl_plus", "oracle")))
"""Methods with a phase before training, memory on the server, and a state that is no client's; methods that mend graphs
or have two mixing matrices have separate tests."""
SAME = {frozenset({"fedgcn", "fedavg_whole_graph"})}
"""Equal methods: the exchange gives all that a GCN of two layers needs, where every node is held by a client."""
METRICS = (
    *("train_loss", "validation", "test", "validation_as_received", "test_as_received"),
    *("test.macro_f1", "test.balanced_accuracy", "test.majority", "test.one_class"),
)


@pytest.fixture(scope="module")
def on_one_node(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """A method's run on one node, client by client; each is made once."""
    made: dict[str, Outcome] = {}

    def run(method: str) -> Outcome:
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            made[method] = run_inline(folder / "run", *federation(method), "runtime.chunk=1")
        return made[method]

    return run


def federation(method: str) -> tuple[str, ...]:
    """Overrides for a run of a method."""
    return (*FEDERATION, f"method={method}", *KNOBS.get(method, ()))


def assert_same(found: Outcome, expected: Outcome, tolerance: float = 1e-5) -> None:
    assert found.summary["status"] == expected.summary["status"] == "completed"
    for record, right in zip(found.rounds, expected.rounds, strict=True):
        assert record["clients"]["ids"] == right["clients"]["ids"]
        assert record["bytes_down"] == right["bytes_down"]
    for name in METRICS:
        np.testing.assert_allclose(found.values(name), expected.values(name), atol=tolerance, err_msg=name)
    assert sorted(found.mixing) == sorted(expected.mixing)
    for server_round, matrix in found.mixing.items():
        np.testing.assert_allclose(matrix, expected.mixing[server_round], atol=tolerance)
    assert sorted(found.models()) == sorted(expected.models()) == list(range(10))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_mixes_by_rows_that_sum_to_one(
    method: str, on_one_node: Callable[[str], Outcome]
) -> None:
    outcome = on_one_node(method)
    assert outcome.summary["status"] == "completed" and outcome.summary["method"] == method
    for name in METRICS:
        assert outcome.values(name).shape == (3, 10) and np.isfinite(outcome.values(name)).all()
    losses = outcome.values("train_loss").mean(1)
    assert losses[0] > losses[-1]
    assert sorted(outcome.mixing) == ([] if method == "oracle" else [1, 2, 3])
    for matrix in outcome.mixing.values():
        assert matrix.shape == (10, 10) and (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_on_three_nodes_in_whole_chunks(
    method: str, on_one_node: Callable[[str], Outcome], inline_run: Callable[..., Outcome]
) -> None:
    elsewhere = inline_run(*federation(method), "runtime.nodes=3", "runtime.chunk=all")
    assert_same(elsewhere, on_one_node(method))


@pytest.mark.parametrize("method", METHODS)
def test_with_half_of_the_clients_placement_changes_nothing_either(
    method: str, inline_run: Callable[..., Outcome]
) -> None:
    half = (*federation(method), "federation.fraction=0.5")
    one, three = inline_run(*half), inline_run(*half, "runtime.nodes=3", "runtime.chunk=all")
    taking_part = 10 if method == "oracle" else 5  # its nodes train one model, and none may leave out a round
    assert [len(record["clients"]["ids"]) for record in one.rounds] == [taking_part] * 3
    for name in METRICS:
        np.testing.assert_allclose(three.values(name), one.values(name), atol=1e-5, err_msg=name)
    for server_round, matrix in one.mixing.items():
        np.testing.assert_allclose(three.mixing[server_round], matrix, atol=1e-5)
        present = one.rounds[server_round - 1]["clients"]["ids"]
        assert not np.delete(matrix, present, axis=1).any()
        sums = matrix.sum(1)
        assert (np.isclose(sums, 1, atol=1e-5) | (sums == 0)).all() and np.isclose(sums[present], 1, atol=1e-5).all()


@pytest.mark.parametrize("method", UNDER_RAY)
def test_under_ray_a_method_gives_the_same(method: str, inline_run: Callable[..., Outcome], tmp_path: Path) -> None:
    run = (*FEDERATION, f"method={method}")
    ray = ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=1")
    found = command(*run, *ray, directory=tmp_path / "ray", cwd=tmp_path)
    assert found.code == 0, found.stderr
    assert_same(found, inline_run(*run))


def test_a_methods_file_is_named_as_the_method() -> None:
    for method in METHODS:
        text = (config_directory() / "method" / f"{method}.yaml").read_text()
        assert yaml.safe_load(text)["name"] == method
        assert text.startswith(f"# subfl method={method} ")


def test_methods_differ(on_one_node: Callable[[str], Outcome]) -> None:
    """Else the comparisons above could not tell one's numbers from another's."""
    losses = {method: on_one_node(method).values("train_loss")[-1] for method in METHODS}
    for one, other in combinations(METHODS, 2):
        differ = np.abs(losses[one] - losses[other]).max() > 1e-4
        assert differ != (frozenset({one, other}) in SAME), (one, other)


def test_fedper_sends_all_layers_but_the_classifier(on_one_node: Callable[[str], Outcome]) -> None:
    shapes = StackedGCN(ModelSettings(name="gcn", hidden=16), 64, 10).shapes
    entries = sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.startswith("classifier"))
    for record in on_one_node("fedper").rounds:
        assert record["clients"]["bytes_down"] == [4 * entries] * 10
        assert max(record["clients"]["bytes_up"]) <= 4 * entries
    models = on_one_node("fedper").models()
    assert all(not np.allclose(models[c]["classifier.bias"], models[0]["classifier.bias"]) for c in range(1, 10))


def test_the_oracle_sends_nothing_and_is_one_model(on_one_node: Callable[[str], Outcome]) -> None:
    oracle = on_one_node("oracle")
    assert oracle.summary["bytes_up"] == oracle.summary["bytes_down"] == 0
    losses = oracle.values("train_loss")
    np.testing.assert_array_equal(losses, np.repeat(losses[:, :1], 10, axis=1))
