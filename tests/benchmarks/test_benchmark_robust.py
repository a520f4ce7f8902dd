"""The benchmark of robust aggregation attacks as it says, and prints every rule under every attack."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmark_scripts import load_benchmark

from subfl_flower import run


def test_every_rule_is_measured_under_every_attack(capsys: pytest.CaptureFixture[str]) -> None:
    robust = load_benchmark("robust")
    robust.main(["--rounds", "1", "--seeds", "0", "--clients", "3", "--dataset", "sbm"])
    shown = capsys.readouterr().out
    assert all(name.split(",")[0] in shown for name in robust.RULES) and "labels reversed" in shown


def test_the_hostile_client_scales_its_update_and_nobody_elses(tmp_path_factory: pytest.TempPathFactory) -> None:
    robust = load_benchmark("robust")
    robust.main(["--rounds", "1", "--seeds", "0", "--clients", "3", "--dataset", "sbm"])  # puts its folder on the path
    norms = {}
    for name in ("none", "update x -30"):
        folder = tmp_path_factory.mktemp("run") / "run"
        run(
            *("fedprox", "sbm"), clients=3, rounds=1, seed=0, run_dir=folder, progress=False,
            overrides=["method.proximal=0", *robust.ATTACKS[name]],
        )  # fmt: skip
        (record,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        norms[name] = np.array(record["clients"]["update_norm"])
    np.testing.assert_allclose(norms["update x -30"] / norms["none"], [30, 1, 1], rtol=1e-3)
