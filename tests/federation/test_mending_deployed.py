"""Methods that exchange something before the first round, between SuperNodes that start a process for every phase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from local_federation import LocalFederation
from run_outcomes import run_inline

pytestmark = pytest.mark.timeout(900)
SHARED = ("dataset=digits", "model.hidden=16", "federation.rounds=2", "federation.local_epochs=2")
METHODS = {
    "fedgcn": ("method.masking=true",),
    "fedsage_plus": (
        *("method.exchanges=1", "method.generator_epochs=3", "method.generator_lr=0.05"),
        *("method.generator.latent=8", "method.generator.hidden=4"),
    ),
}
PHASES = {"fedgcn": ["boundary", "neighbours", "mend"], "fedsage_plus": ["generator", "gradients", "generator"]}


@pytest.mark.parametrize("method", METHODS)
def test_it_gives_the_figures_of_one_process(federation: LocalFederation, method: str, tmp_path: Path) -> None:
    shared = (*SHARED, f"method={method}", *METHODS[method])
    expected = run_inline(tmp_path / "inline", *shared, "partition=metis", "partition.clients=4")
    outcome = federation.outcome(federation.submit(*shared, "record.client_models=false"))
    assert outcome.code == 0, outcome.stdout
    assert outcome.summary["status"] == "completed"
    for name in ("validation", "test", "validation_as_received", "test_as_received", "train_loss"):
        np.testing.assert_allclose(outcome.values(name), expected.values(name), atol=1e-5, err_msg=name)
    found, right = (
        [(phase["action"], phase["bytes_up"], phase["bytes_down"]) for phase in run.summary["exchanges"]]
        for run in (outcome, expected)
    )
    assert found == right and [action for action, _, _ in found] == PHASES[method]
    assert all(up + down > 0 for _, up, down in found)
