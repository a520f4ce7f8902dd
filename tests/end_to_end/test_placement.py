"""Same seed, same numbers: wherever clients run and however they are stacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_outcomes import SMALL_DIGITS, Outcome, command, run_inline

FEDERATION = (
    *SMALL_DIGITS,
    "method=fedpub",
    "federation.rounds=5",
    "federation.local_epochs=2",
    "record.mixing_every=1",
)
PLACES = [(nodes, chunk) for nodes in (1, 2, 5, 10) for chunk in ("1", "all")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_inline(tmp_path_factory.mktemp("reference") / "run", *FEDERATION, "runtime.nodes=1", "runtime.chunk=1")


@pytest.fixture(scope="module", params=[*PLACES, "ray"], ids=str)
def elsewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("elsewhere")
    if request.param == "ray":
        ray = ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2")
        outcome = command(*FEDERATION, *ray, directory=folder / "run", cwd=folder)
        assert outcome.code == 0, outcome.stderr
        return outcome
    nodes, chunk = request.param
    return run_inline(folder / "run", *FEDERATION, f"runtime.nodes={nodes}", f"runtime.chunk={chunk}")


@pytest.mark.parametrize(
    "name", ["validation", "test", "validation_as_received", "test_as_received", "train_loss", "sparsity"]
)
def test_metrics_are_the_same_in_every_round(reference: Outcome, elsewhere: Outcome, name: str) -> None:
    assert reference.values(name).shape == (5, 10)
    np.testing.assert_allclose(elsewhere.values(name), reference.values(name), atol=1e-4)


def test_examples_and_bytes_are_the_same(reference: Outcome, elsewhere: Outcome) -> None:
    for record, expected in zip(elsewhere.rounds, reference.rounds, strict=True):
        for name in ("ids", "num_examples", "bytes_down"):
            assert record["clients"][name] == expected["clients"][name]
        # A mask entry within rounding of its threshold may fall on either side.
        up, expected_up = np.array(record["clients"]["bytes_up"]), np.array(expected["clients"]["bytes_up"])
        assert np.abs(up - expected_up).max() <= 8


def test_mixing_matrices_are_the_same(reference: Outcome, elsewhere: Outcome) -> None:
    assert sorted(elsewhere.mixing) == sorted(reference.mixing) == [1, 2, 3, 4, 5]
    for server_round, matrix in elsewhere.mixing.items():
        np.testing.assert_allclose(matrix, reference.mixing[server_round], atol=1e-4)


def test_exported_models_are_the_same(reference: Outcome, elsewhere: Outcome) -> None:
    models, expected = elsewhere.models(), reference.models()
    assert sorted(models) == sorted(expected) == list(range(10))
    for client, tensors in models.items():
        assert tensors.keys() == expected[client].keys()
        for name, values in tensors.items():
            np.testing.assert_allclose(values, expected[client][name], atol=1e-3, err_msg=f"client {client}, {name}")


def test_summaries_are_the_same(reference: Outcome, elsewhere: Outcome) -> None:
    for name in ("status", "best_round", "rounds", "clients"):
        assert elsewhere.summary[name] == reference.summary[name]
    for name in ("test_at_best_validation", "test_last", "test_as_received_at_best_validation"):
        assert elsewhere.summary[name] == pytest.approx(reference.summary[name], abs=1e-4)


def test_another_seed_gives_other_numbers(reference: Outcome, tmp_path: Path) -> None:
    other = run_inline(tmp_path / "run", *FEDERATION, "seed=1")
    assert np.abs(other.values("train_loss") - reference.values("train_loss")).max() > 1e-3
    assert not (tmp_path / "run" / "state").exists()


@pytest.mark.parametrize("method", ["local", "fedavg", "fedpub_released"])
def test_other_methods_do_not_depend_on_placement_either(tmp_path: Path, method: str) -> None:
    overrides = ("dataset=digits", f"method={method}", "model.hidden=16", "federation.rounds=3")
    one = run_inline(tmp_path / "one", *overrides, "runtime.chunk=1")
    other = run_inline(tmp_path / "other", *overrides, "runtime.nodes=3", "runtime.chunk=all")
    for name in ("train_loss", "validation", "test_as_received"):
        np.testing.assert_allclose(other.values(name), one.values(name), atol=1e-4)


def test_without_similarity_and_masks_fedpub_is_fedavg(tmp_path: Path) -> None:
    plain = ("dataset=digits", "model.hidden=16", "federation.rounds=4")
    ablated = run_inline(
        *(tmp_path / "fedpub", *plain, "method=fedpub", "method.similarity=none", "method.masks=false"),
        *("method.proximal=0", "method.weight_decay=null"),
    )
    fedavg = run_inline(tmp_path / "fedavg", *plain, "method=fedavg")
    for name in ("train_loss", "validation", "test"):
        np.testing.assert_allclose(ablated.values(name), fedavg.values(name), atol=1e-4)
