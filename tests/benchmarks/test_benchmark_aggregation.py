"""The benchmark of the server's aggregation mixes what it says, in each of its forms."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from benchmark_scripts import load_benchmark


@pytest.fixture(scope="module")
def aggregation() -> ModuleType:
    return load_benchmark("aggregation")


def test_all_cases_are_measured(aggregation: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    aggregation.main(["--clients", "3", "--parameters", "25000", "--repeats", "1"])
    shown = capsys.readouterr().out
    assert shown.count("FedPUB.mixed") == 2 and "28% of the" in shown


def test_rows_alone_are_mixed_as_the_whole_stack_is(aggregation: ModuleType) -> None:
    rng = np.random.default_rng(0)
    stack = aggregation.gcn_stack(3, 25_000, rng)
    rows = aggregation.with_rows(stack, 0.5, rng)
    whole = {name: np.asarray(values) for name, values in rows.items()}
    matrix = rng.dirichlet(np.ones(3), size=3)
    expected, found = (strategy.mixed(matrix, updates) for strategy, updates in map(aggregation.fedpub, (whole, rows)))
    np.testing.assert_allclose(np.asarray(found["conv1.weight"]), expected["conv1.weight"], rtol=1e-5, atol=1e-6)
