"""`runtime.precision`: products in bfloat16, parameters and figures in float32, and what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_outcomes import SMALL_DIGITS, Outcome, run_inline

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.models.sparse import SparseMatrix
from subfl_flower.subgraphs.models.stacked_gnn import StackedGNN

RUN = ("dataset=digits", "model.hidden=16", "federation.rounds=4", "federation.local_epochs=2")
LOW = "runtime.precision=bfloat16"
GCN_OF_PYG = ("model._target_=torch_geometric.nn.GCN", "+model.hidden_channels=8", "+model.num_layers=2")


def trained(folder: Path, *overrides: str) -> tuple[Outcome, Outcome]:
    return run_inline(folder / "float32", *overrides), run_inline(folder / "bfloat16", *overrides, LOW)


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=fedavg", *RUN),
        ("method=fedavg", *RUN, "model=sage"),
        ("method=fedavg", *RUN, "model=gat", "model.attention_dropout=0.2"),
        ("method=fedavg", *RUN, "model=gcnii"),
        ("method=fedpub", "method.sparsity=0", *SMALL_DIGITS, *RUN[2:]),  # pruning would jump
        ("method=fedavg", RUN[0], *RUN[2:], "model=module", *GCN_OF_PYG),
    ],
    ids=["fedavg", "sage", "gat", "gcnii", "fedpub", "module"],
)
def test_losses_differ_by_a_percent_and_models_are_float32(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    whole, low = trained(tmp_path, *overrides)
    difference = np.abs(low.values("train_loss") / whole.values("train_loss") - 1)
    assert 1e-5 < difference.max() < 0.03  # bfloat16 has eight bits: 2^-8 = 0.004
    for client, tensors in low.models().items():
        for name, values in tensors.items():
            assert values.dtype == np.float32, name
            assert np.abs(values - whole.models()[client][name]).max() < 0.1


def test_training_computes_in_bfloat16_and_evaluation_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    compute = StackedGNN.__call__

    def watched(self: StackedGNN, parameters: Any, chunk: Any, draws: Any = None) -> torch.Tensor:
        outputs = compute(self, parameters, chunk, draws)
        found[torch.is_grad_enabled()].add(outputs.dtype)
        return outputs

    monkeypatch.setattr(StackedGNN, "__call__", watched)
    run_inline(tmp_path / "run", "method=fedavg", *RUN, LOW, "runtime.threads=2")
    assert found == {True: {torch.bfloat16}, False: {torch.float32}}


def test_a_sparse_product_is_in_float32_to_the_last_bit() -> None:
    matrix = SparseMatrix(np.random.default_rng(0).random((4, 5)) * (np.arange(20).reshape(4, 5) % 3 == 0))  # type: ignore[arg-type]
    dense = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (expected_gradient,) = torch.autograd.grad((expected := matrix @ dense).sum(), dense)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = matrix @ dense
    (gradient,) = torch.autograd.grad(product.sum(), dense)
    assert torch.equal(product, expected) and torch.equal(gradient, expected_gradient)


def test_users_compute_in_float32_alone_and_other_types_are_refused() -> None:
    with pytest.raises(SubflError, match=r"^runtime\.precision=bfloat16: clients of method=fedgnn compute in float32"):
        composed_config(["method=fedgnn", LOW])
    with pytest.raises(SubflError, match=r"^runtime\.[^\n]*precision[^\n]*float32[^\n]*bfloat16[^\n]*$"):
        composed_config(["dataset=digits", "runtime.precision=int8"])
