"""The papers' numbers: transcribed as printed, and each of runs that its experiment has."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from experiment_points import values

from subfl_flower.catalogue.groups import choices

FOLDER = Path(__file__).parents[2] / "subfl_flower" / "reproduction" / "papers"
TABLES: dict[str, dict[str, Any]] = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")}

# The last column of FED-PUB's Tables 1 and 2: the mean over all data sets and numbers of clients.
PRINTED_MEANS = {
    "fedpub_table1": {
        **{"local": 76.72, "fedavg": 73.38, "fedprox": 73.38, "fedper": 78.42, "gcfl": 77.61},
        **{"fedgnn_subgraph": 73.66, "fedsage_plus": 73.12, "fedpub": 79.53},
    },
    "fedpub_table2": {
        **{"local": 79.57, "fedavg": 74.58, "fedprox": 72.84, "fedper": 79.94, "gcfl": 79.90},
        **{"fedgnn_subgraph": 75.23, "fedsage_plus": 73.47, "fedpub": 81.59},
    },
}


@pytest.mark.parametrize("name", PRINTED_MEANS)
def test_the_main_tables_have_the_means_that_the_paper_prints(name: str) -> None:
    found = defaultdict(list)
    for row in TABLES[name]["rows"]:
        found[row["where"]["method"]].append(row["value"])
    assert {len(each) for each in found.values()} == {18}
    assert {method: round(fmean(each), 2) for method, each in found.items()} == PRINTED_MEANS[name]


@pytest.mark.parametrize("name", sorted(TABLES))
def test_each_number_is_of_runs_of_the_experiment(name: str) -> None:
    """A value that an axis never has would leave the number without a row; data sets may be chosen."""
    axes = choices("experiment")[name].sweep
    for row in TABLES[name]["rows"]:
        for key, wanted in row["where"].items():
            inner = next((axis for axis in axes if axis.endswith(f".{key}")), key)
            if inner in axes and key != "dataset":
                swept = [yaml.safe_load(each.partition("=")[2]) for each in values(inner, axes[inner])]
                assert _number(wanted) in [_number(each) for each in swept], (key, wanted)
        assert row["where"].get("dataset", "cora") in choices("dataset")
        assert row["where"].get("method", "fedpub") in choices("method")


def _number(value: Any) -> Any:
    """YAML reads 1e-3 as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def test_what_no_text_gives_is_said_so_and_has_no_number() -> None:
    assert {name for name, table in TABLES.items() if not table["at_hand"]} >= {"subpfed", "fedpub_figure1"}
    assert all(not table["rows"] for table in TABLES.values() if not table["at_hand"])
    assert all(table["rows"] or table.get("note") for table in TABLES.values() if table["at_hand"])
