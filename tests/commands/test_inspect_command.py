from __future__ import annotations

import json
from pathlib import Path

import pytest

from subfl_flower.cli import main

NODES = "id,label,age,city\n" + "".join(f"n{i},{'xxy'[i % 3]},{i * i},{['Rome', 'Oslo'][i % 2]}\n" for i in range(12))
EDGES = "source,target\n" + "".join(f"n{i},n{i + 1}\n" for i in range(11)) + "n0,n0\n"


def subfl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "nodes.csv").write_text(NODES)
    (tmp_path / "edges.csv").write_text(EDGES)
    return tmp_path


def test_a_graph_is_described_and_nothing_is_trained(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tables / "made" / "facts.json"
    arguments = (f"dataset.path={tables}", "dataset.features.one_hot=[city]", "partition=random", "partition.clients=2")
    before = sorted(path.name for path in tables.iterdir())
    assert subfl("inspect", "dataset=custom", *arguments, "dataset.train_fraction=0.5", f"out={out}") == 0
    shown = capsys.readouterr().out
    for part in (
        "nodes",
        "categories 2, standardized 1",
        "│ x     │ 8     │ 66.7% │",
        "not used: 1 self-loops",
        "fingerprint",
    ):
        assert part in shown, part
    facts = json.loads(out.read_text())
    assert facts["classes"] == {"x": 8, "y": 4} and facts["edges"] == 11 and len(facts["clients"]) == 2
    assert sorted(path.name for path in tables.iterdir()) == sorted([*before, "made"])


def test_categories_may_be_stated_in_their_order(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stated = "dataset.features.one_hot={city:[Rome,Oslo,Bern]}"
    assert subfl("inspect", "dataset=custom", f"dataset.path={tables}", stated, "partition=whole") == 0
    assert "categories 3" in capsys.readouterr().out


def test_data_that_a_run_would_refuse_are_shown_with_the_reason(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tables / "nodes.csv").write_text(NODES.replace("n11,y", "n11,"))
    arguments = (f"dataset.path={tables}", "dataset.features.ignore=[city]", "partition=random", "partition.clients=6")
    assert subfl("inspect", "dataset=custom", *arguments, "dataset.train_fraction=0.1") == 2
    shown = capsys.readouterr()
    assert "unlabelled" in shown.out and "│ x     │ 8     │ 72.7% │" in shown.out
    assert "subfl inspect: a run would be refused: client" in shown.err and "has no training node" in shown.err
    assert subfl("inspect", "dataset=custom", *arguments[:2], "partition=random", "partition.clients=99") == 2
    shown = capsys.readouterr()
    assert "99 is more than the 12 nodes" in shown.err and "│ nodes" in shown.out


def test_what_cannot_be_read_is_one_sentence(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert subfl("inspect", "dataset=custom", f"dataset.path={tables}") == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.startswith("subfl inspect: ") and shown.err.count("\n") == 1
    assert "dataset.features.one_hot=[city]" in shown.err


def test_ratings_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert subfl("inspect", "dataset=synthetic_ratings") == 0
    shown = capsys.readouterr().out
    assert "users" in shown and "items" in shown and "ratings" in shown
