"""``runtime.address``: actors of a Ray cluster that somebody else started, whose states travel with the messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from run_outcomes import command, run_inline

HEAD = """
import ray, sys
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
RUN = (
    "dataset=digits",
    "method=fedpub",
    "federation.rounds=3",
    "model.hidden=16",
    "method.sparsity=null",
    "method.mask_l1=5e-6",
    "method.mask_threshold=0.985",
)


@pytest.fixture
def cluster_address() -> Iterator[str]:
    """The address of a cluster that lives as long as the process that started it."""
    head = subprocess.Popen([sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert head.stdin is not None and head.stdout is not None
    try:
        yield head.stdout.readline().strip()
    finally:
        head.stdin.close()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()


def test_an_existing_cluster_gives_the_numbers_of_inline(cluster_address: str, tmp_path: Path) -> None:
    outcome = command(
        *RUN,
        "runtime=ray",
        "runtime.nodes=2",
        f"runtime.address='{cluster_address}'",
        directory=tmp_path / "ray",
        cwd=tmp_path,
        env={},
        timeout=400,
    )
    assert outcome.code == 0, outcome.stderr
    inline = run_inline(tmp_path / "inline", *RUN)
    for ours, theirs in zip(outcome.rounds, inline.rounds, strict=True):
        for name in ("train_loss", "validation", "test"):
            np.testing.assert_allclose(ours["clients"][name], theirs["clients"][name], atol=1e-4)
    # Masks and moments lived on between rounds: else nothing would be pruned in the third.
    assert outcome.rounds[-1]["sparsity"] > 0.05
    assert outcome.rounds[-1]["sparsity"] == pytest.approx(inline.rounds[-1]["sparsity"], abs=1e-3)
