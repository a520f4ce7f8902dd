"""A run keeps what its data were, and goes on with these data only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from subfl_flower.cli import main

NODES = "id,label,age\n" + "".join(f"n{i},{'xy'[i % 2]},{i * i}\n" for i in range(20))
EDGES = "source,target\n" + "".join(f"n{i},n{i + 1}\n" for i in range(19))


def subfl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_run_on_a_graph_that_has_changed_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nodes.csv").write_text(NODES)
    (tmp_path / "edges.csv").write_text(EDGES + "n0,n0\n")
    run = tmp_path / "run"
    data = ("dataset=custom", f"dataset.path={tmp_path}", "dataset.train_fraction=0.5", "partition=random")
    more = (
        "partition.clients=2",
        "method=fedavg",
        "federation.rounds=2",
        "record.checkpoint_every=1",
        "model.hidden=4",
    )
    assert subfl(*data, *more, f"hydra.run.dir={run}") == 0
    assert "not used: 1 self-loops" in capsys.readouterr().err
    facts = json.loads((run / "data.json").read_text())
    assert facts["nodes"] == 20 and set(facts["fingerprints"]) == {"files", "data", "split", "partition"}
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    (tmp_path / "nodes.csv").write_text(NODES.replace("n3,y,9", "n3,y,10"))
    assert subfl(f"resume={run}", "federation.rounds=3") == 2
    assert f"the data are not those of {run}: nodes.csv changed since the run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    (tmp_path / "nodes.csv").write_text(NODES.replace("\n", "\r\n"))  # another file with the same content
    assert subfl(f"resume={run}", "federation.rounds=3") == 0
    (run / "data.json").unlink()
    assert subfl(f"resume={run}", "federation.rounds=4") == 2
    assert "has no data.json" in capsys.readouterr().err
