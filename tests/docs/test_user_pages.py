"""The pages on a user's own data: every command that they begin with works on their own example."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_code import blocks, lines_of_code, modules, write_modules


def run(folder: Path, command: str) -> str:
    """Run a line of a page in a folder, with few rounds; what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    line = re.sub(r"federation\.rounds=\d+", "federation.rounds=3", command)
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A page, and a folder in which its example has been made."""
    page = request.param
    (tmp_path / "make_example.py").write_text(blocks(page, "python")[0])
    subprocess.run([sys.executable, "make_example.py"], cwd=tmp_path, check=True, timeout=60)
    return page, tmp_path


@pytest.mark.parametrize("example", ["your_graph.md"], indirect=True)
def test_the_way_of_a_graph(example: tuple[str, Path]) -> None:
    page, folder = example
    shown = [run(folder, command) for command in blocks(page, "")[0].splitlines()]
    assert "categories 3, standardized 2, as they are 1" in shown[0] and "transferred" in shown[0]
    assert (folder / "outputs/wards/report.html").is_file()
    nodes = {row["id"]: row["label"] for row in rows(folder / "nodes.csv")}
    predictions = rows(folder / "predictions.csv")
    assert {row["node"]: row["label"] for row in predictions} == nodes
    names = ("died", "home", "transferred")
    for row in predictions:
        probabilities = {name: float(row[f"p_{name}"]) for name in names}
        assert row["prediction"] == max(names, key=lambda name: probabilities[name])
        assert abs(sum(probabilities.values()) - 1) < 1e-4

    exec(blocks(page, "python")[1].replace('"mine.npz"', repr(str(folder / "mine.npz"))), {})
    given = "subfl inspect dataset=custom dataset.path=. 'dataset.features.ignore=[ward,age]' partition=given"
    assert re.search(r"│\s+1 │\s+2 │", run(folder, f"{given} partition.file=mine.npz"))


@pytest.mark.parametrize("example", ["your_ratings.md"], indirect=True)
def test_the_way_of_ratings(example: tuple[str, Path]) -> None:
    page, folder = example
    ways, rankings = blocks(page, "")
    shown = [run(folder, command) for command in ways.splitlines()]
    assert "genre (3 values)" in shown[0] and "user user-7 (client" in shown[3] and " film, no. " in shown[3]
    rated = {(row["user"], row["item"]) for row in rows(folder / "ratings.csv")}
    recommended = rows(folder / "recommendations.csv")
    users = {user for user, _ in rated}
    assert {row["user"] for row in recommended} == users and len(recommended) == 10 * len(users)
    again = sum((row["user"], row["item"]) in rated for row in recommended)
    assert again <= 240  # at most those that are held out for the test
    assert "test" in run(folder, rankings.strip())


@pytest.mark.parametrize("name", modules())
def test_a_class_is_forty_lines_at_most(name: str) -> None:
    assert 5 < lines_of_code(modules()[name]) <= 40


def test_the_way_of_a_class(tmp_path: Path) -> None:
    write_modules(tmp_path)
    commands = [line for block in blocks("your_code.md", "") for line in block.splitlines()]
    shown = [run(tmp_path, command) for command in commands]
    assert [text.split(": test")[0].splitlines()[-1] for text in shown if ": test" in text] == [
        *("fedavg on rings",) * 3,
        "fedpub on rings",
        *("fedavg on rings",) * 2,
    ]
    # 6 cliques of 10 nodes: 6 * 45 edges inside, 6 between.
    facts = dict(re.findall(r"│ (\w+) +│ (\S+) +│", shown[1]))
    assert (facts["nodes"], facts["edges"]) == ("60", "276")
    assert [line.split(",")[0] for line in (tmp_path / "outputs/signs/figures.csv").read_text().split()] == list("123")
