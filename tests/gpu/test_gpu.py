"""Runs on a GPU: the numbers of the CPU, one chunk for a cohort, two actors on one GPU, bfloat16.

pytest -m gpu
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_outcomes import SMALL_DIGITS, Outcome, run_inline

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible here"),
]

GPU, CPU = "runtime.device=cuda", "runtime.device=cpu"
GRAPHS = ("dataset=digits", "model.hidden=16", "federation.rounds=5", "federation.local_epochs=2")
USERS = (
    *("dataset.num_users=40", "dataset.num_items=30", "dataset.ratings_per_user=10", "model.dim=4"),
    *("federation.rounds=3", "method.evaluate_every=1"),
)
METHODS = {
    "local": ("method=local", *GRAPHS),
    "fedavg": ("method=fedavg", *GRAPHS),
    "fedavg, sampled": ("method=fedavg", *GRAPHS, "federation.fraction=0.6"),
    "fedpub": ("method=fedpub", *SMALL_DIGITS, *GRAPHS[2:]),
    "subpfed": ("method=subpfed", *GRAPHS),
    "fedgnn": ("method=fedgnn", *USERS, "method.pseudo_items=5"),
    "perfedrec": ("method=perfedrec", *USERS),
}


def assert_equal_figures(one: Outcome, other: Outcome) -> None:
    for name in ("validation", "test", "train_loss"):
        np.testing.assert_allclose(one.values(name), other.values(name), atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_a_run_has_the_figures_of_one_on_the_cpu(tmp_path: Path, name: str) -> None:
    gpu, cpu = (run_inline(tmp_path / device, *METHODS[name], device) for device in (GPU, CPU))
    assert_equal_figures(gpu, cpu)
    assert gpu.models().keys() == cpu.models().keys()


def test_all_clients_are_one_chunk_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[tuple[int, str]] = []
    train = SubgraphClient.train_chunk

    def watched(self: SubgraphClient, batch: Any, state: Any) -> Any:
        chunks.append((len(batch), state.buffer.device.type))
        return train(self, batch, state)

    monkeypatch.setattr(SubgraphClient, "train_chunk", watched)
    run_inline(tmp_path / "run", *METHODS["fedpub"], GPU, "runtime.threads=4")
    assert chunks == [(10, "cuda")] * 5


def test_two_actors_share_a_gpu(tmp_path: Path) -> None:
    shared = ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2", "runtime.num_gpus=0.5", GPU)
    one = run_inline(tmp_path / "one", *METHODS["fedpub"], CPU)
    two = run_inline(tmp_path / "two", *METHODS["fedpub"], *shared)
    assert_equal_figures(two, one)


def test_bfloat16_differs_by_a_percent(tmp_path: Path) -> None:
    whole = run_inline(tmp_path / "float32", *METHODS["fedavg"], GPU)
    low = run_inline(tmp_path / "bfloat16", *METHODS["fedavg"], GPU, "runtime.precision=bfloat16")
    difference = np.abs(low.values("train_loss") / whole.values("train_loss") - 1)
    assert 1e-6 < difference.max() < 0.03
