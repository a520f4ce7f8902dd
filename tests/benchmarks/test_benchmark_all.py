"""The table of docs/benchmarks.md holds the rows that were measured, and nothing else of the page changes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmark_scripts import load_benchmark


@pytest.fixture(scope="module")
def benchmarks() -> ModuleType:
    return load_benchmark("all")


def row(runtime: str, threads: int, seconds: float) -> dict[str, Any]:
    parts = {"client": 0.9 * seconds, "server": 0.1 * seconds, "transport": 0.0}
    case = {"method": "fedpub", "clients": 10, "runtime": runtime, "threads": threads}
    return {**case, "seconds": seconds, "ratio": seconds / 0.2, "memory_mib": 500.4, **parts}


def test_the_page_gets_a_line_for_each_case(benchmarks: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{benchmarks.BEGIN}\nold\n{benchmarks.END}\nafter\n")
    benchmarks.write_page({"Cora": [row("floor", 1, 0.2), row("inline", 2, 0.05)]}, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| fedpub | 10 | floor | 200 | 1.00 | 180 | 20 | 0 | 500 |" in text
    assert "| fedpub | 10 | inline, 2 threads | 50 | **0.25** | 45 | 5 | 0 | 500 |" in text


def test_the_picture_has_the_ratio_of_each_case(benchmarks: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "speed.svg"
    benchmarks.draw([row("floor", 1, 0.2), row("inline", 1, 0.1), row("inline", 2, 0.05)], file)
    assert file.read_text().count("<!-- inline") == 2 and "<!-- 0.25 -->" in file.read_text()


@pytest.mark.parametrize("clients", [10, 1000])
def test_a_client_of_the_cost_per_client_has_as_many_nodes_and_edges_among_many_clients(
    benchmarks: ModuleType, clients: int
) -> None:
    given = benchmarks.clients_of_forty_nodes(clients)
    settings = dict(item.split("=") for item in given if "=" in item)
    community, communities = int(settings["dataset.nodes_per_community"]), int(settings["dataset.communities"])
    assert communities * community == 40 * clients
    inside, outside = float(settings["dataset.p_class"]), float(settings["dataset.p_out"])
    assert inside * community + outside * (communities - 1) * community == pytest.approx(6.72, rel=1e-4)
