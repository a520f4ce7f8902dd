"""A resumed recommendation run has the numbers of an unbroken one, whatever the method."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_outcomes import Outcome, method_names, run_inline

from subfl_flower.composition import composed_job
from subfl_flower.simulation import simulate

SMALL = ("dataset.num_users=24", "dataset.num_items=40", "dataset.ratings_per_user=12", "model.dim=4")
EIGHT = "method.users_per_round=8"
SMALLER_ROUNDS = {
    "fcf": (EIGHT,),
    "fedmf": (EIGHT,),
    "perfedrec": (EIGHT, "method.cluster_start=2", "method.cluster_every=2", "method.clusters=2"),
    "fedavg": (EIGHT, "dataset=synthetic_ratings", "task=ranking"),
}


# fedgnn: test_fedgnn_runs
@pytest.mark.parametrize("method", sorted({*method_names("ratings"), "fedavg"} - {"fedgnn"}))
def test_rounds_after_a_checkpoint_are_those_of_an_unbroken_run(tmp_path: Path, method: str) -> None:
    every = ("method.evaluate_every=1",) if method in SMALLER_ROUNDS else ()
    common = (f"method={method}", *SMALLER_ROUNDS.get(method, ()), *SMALL, *every, "record.checkpoint_every=1")
    unbroken = run_inline(tmp_path / "unbroken", *common, "federation.rounds=4")
    run_inline(tmp_path / "broken", *common, "federation.rounds=2")
    job = composed_job([f"resume={tmp_path / 'broken'}", "federation.rounds=4"])
    simulate(job.config, job.directory, resume=True)
    resumed = Outcome(tmp_path / "broken")
    assert [record["round"] for record in resumed.rounds] == [1, 2, 3, 4]
    for one, other in zip(unbroken.rounds, resumed.rounds, strict=True):
        for figure in ("validation", "test", *({"figures"} & one.keys())):
            assert one[figure] == pytest.approx(other[figure], abs=1e-6)
        assert one["clients"]["ids"] == other["clients"]["ids"] and one["bytes_up"] == other["bytes_up"]
    # A hit rate of 24 users may stay the same from one round to the next.
    tests = {
        record["figures"]["test.full_ndcg@20"] if "figures" in record else record["test"] for record in unbroken.rounds
    }
    assert method in ("bias_row", "popularity") or len(tests) == 4
