"""The page on a new method: its method works from a folder outside this project, and computes what it says."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from page_code import blocks, lines_of_code, write_method
from run_outcomes import Outcome, command
from tiny_clients import (
    CLASSES,
    cohort_of,
    dense_features,
    dense_gcn,
    dense_operator,
    family_of,
    parameters_of,
    tiny_client,
    trained,
)

RUN = (
    *("method=fedgta", "dataset=digits", "partition=metis", "partition.clients=4", "model.hidden=16"),
    *("federation.rounds=3", "federation.fraction=0.75", "method.threshold=0.999"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_method(tmp_path_factory.mktemp("mine"))


@pytest.fixture(scope="module")
def inline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return command(*RUN, directory=tmp_path_factory.mktemp("inline") / "run", cwd=folder)


@pytest.fixture
def method(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("fedgta")
    sys.modules.pop("fedgta", None)


def test_both_sides_are_sixty_lines_at_most() -> None:
    assert 30 < lines_of_code(blocks("new_method.md", "python")[0]) <= 60


def test_it_trains_inline(inline: Outcome) -> None:
    assert inline.code == 0, inline.stderr
    assert inline.summary["method"] == "fedgta" and inline.summary["status"] == "completed"
    assert [len(record["clients"]["ids"]) for record in inline.rounds] == [3, 3, 3]
    matrix = inline.mixing[3]
    rows = matrix.sum(1)
    assert np.isclose(rows[rows > 0], 1).all() and (matrix >= 0).all()


@pytest.mark.slow
def test_it_trains_alike_under_ray(folder: Path, inline: Outcome, tmp_path: Path) -> None:
    found = command(*RUN, "runtime=ray", directory=tmp_path / "run", cwd=folder)
    assert found.code == 0, found.stderr
    for one, other in zip(inline.rounds, found.rounds, strict=True):
        assert one["clients"]["ids"] == other["clients"]["ids"]
        np.testing.assert_allclose(one["clients"]["train_loss"], other["clients"]["train_loss"], rtol=1e-5)
        assert one["clients"]["bytes_up"] == other["clients"]["bytes_up"]


def test_a_wrong_knob_is_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    found = command(*RUN, "method.threshold=2", directory=tmp_path / "run", cwd=folder)
    assert found.code == 2
    assert "method.threshold: Input should be less than or equal to 1 (found 2)" in found.stderr


def test_its_uploads_are_moments_and_confidence_of_propagated_predictions(method: ModuleType) -> None:
    """Two clients of one chunk, padded to the larger one, against dense matrices in double precision."""
    graphs = [tiny_client(0, 9), tiny_client(1, 6)]
    client = family_of(method.FedGTAClient, cohort_of(*graphs), {"steps": 2, "alpha": 0.25, "orders": 2})
    result = trained(client, parameters_of(2), epochs=2)
    assert result.failures == {}
    for row, graph in enumerate(graphs):
        operator = torch.from_numpy(dense_operator(graph.edge_index, graph.num_nodes))
        sent = {name: torch.from_numpy(values[row]).double() for name, values in result.arrays.items()}
        logits, _ = dense_gcn(
            {name: sent[name] for name in client.model.shapes},
            operator,
            torch.from_numpy(dense_features(graph)).double(),
        )
        start = label = logits.softmax(1).numpy()
        moments = []
        for _ in range(2):
            label = 0.25 * start + 0.75 * operator.numpy() @ label
            centred = label - label.mean(0)
            moments += [label.mean(0), centred.mean(0), (label**2).mean(0), (centred**2).mean(0)]
        degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
        confidence = (degrees[:, None] * (1 / math.e + label * np.log(label))).sum()
        np.testing.assert_allclose(result.arrays["moments"][row], np.concatenate(moments), atol=1e-5)
        np.testing.assert_allclose(result.arrays["confidence"][row], [confidence], rtol=1e-4)
        assert result.arrays["moments"].shape == (2, 2 * 2 * 2 * CLASSES)


def test_clients_average_over_those_with_similar_moments_by_their_confidence(
    method: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toy_rounds import replies, strategy_of, toy_roster

    initial = {"conv1.weight": np.zeros((2, 1), np.float32)}
    settings = {"steps": 1, "orders": 1, "threshold": 0.5}
    strategy = strategy_of(method.FedGTA, toy_roster(1, 1, 1), initial, settings)
    weights = np.array([[[1.0], [2.0]], [[3.0], [5.0]], [[100.0], [200.0]]])
    moments = np.array([[1.0, 0, 0, 0], [1.0, 0.5, 0, 0], [0, 0, 1.0, 0]])
    sent = {"conv1__weight": weights, "moments": moments, "confidence": [[1.0], [3.0], [7.0]]}
    strategy.take(replies([0, 1, 2], 3, **sent))
    np.testing.assert_allclose(strategy.mixing, [[0.25, 0.75, 0], [0.25, 0.75, 0], [0, 0, 1]])
    received = strategy.instructions(2, [0, 1, 2])["conv1.weight"]
    np.testing.assert_allclose(received[:, :, 0], [[2.5, 4.25], [2.5, 4.25], [100, 200]])
    # Client 2 is absent, and nobody who replies is like it: it keeps what it had.
    strategy.take(replies([0, 1], 3, **{name: np.asarray(values)[:2] for name, values in sent.items()}))
    np.testing.assert_allclose(strategy.mixing[2], 0)
    np.testing.assert_allclose(strategy.instructions(3, [2])["conv1.weight"][0, :, 0], [100, 200])
