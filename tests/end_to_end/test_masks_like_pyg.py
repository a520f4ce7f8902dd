"""A PyG `Data` with masks trains here as in a plain PyG script on exactly these masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from run_outcomes import run_inline
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import to_undirected

ROUNDS, SEEDS = 150, range(5)


def digits_with_masks() -> Data:
    """600 images as a nearest-neighbour graph; weighted edges, few training nodes, some nodes of no mask."""
    images, digits = load_digits(return_X_y=True)
    images, digits = images[:600] / 16, digits[:600]
    nearest = kneighbors_graph(images, 5).tocoo()
    edge_index = to_undirected(torch.from_numpy(np.stack([nearest.row, nearest.col]).astype(np.int64)))
    order = np.random.default_rng(7).permutation(600)
    masks = {}
    for name, part in (("train_mask", order[:80]), ("val_mask", order[80:200]), ("test_mask", order[200:550])):
        masks[name] = torch.zeros(600, dtype=torch.bool)
        masks[name][torch.from_numpy(part)] = True
    row, column = edge_index
    length = torch.from_numpy(np.linalg.norm(images[row] - images[column], axis=1))
    weight = torch.exp(-(length**2) / 2).float()
    return Data(
        torch.from_numpy(images).float(), edge_index, y=torch.from_numpy(digits) + 1, edge_weight=weight, **masks
    )


class PlainGCN(torch.nn.Module):
    """Two convolutions and a linear classifier, as a user of PyG writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(64, 32), GCNConv(32, 32)
        self.classifier = torch.nn.Linear(32, 10)

    def forward(self, data: Data, weight: torch.Tensor | None) -> torch.Tensor:
        hidden = F.dropout(self.first(data.x, data.edge_index, weight).relu(), 0.5, self.training)
        hidden = F.dropout(self.second(hidden, data.edge_index, weight).relu(), 0.5, self.training)
        return self.classifier(hidden)


def plain_accuracy(data: Data, seed: int, weight: torch.Tensor | None) -> float:
    """Test accuracy at the best validation epoch."""
    torch.manual_seed(seed)
    model = PlainGCN()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-6)
    found = []
    for _ in range(ROUNDS):
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(data, weight)[data.train_mask], data.y[data.train_mask] - 1).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            correct = model(data, weight).argmax(1) == data.y - 1
        found.append([correct[mask].float().mean().item() for mask in (data.val_mask, data.test_mask)])
    validation, test = np.array(found).T
    return float(test[validation.argmax()])


def test_masks_and_weights_give_the_accuracy_of_a_plain_script(tmp_path: Path) -> None:
    data = digits_with_masks()
    torch.save(data, tmp_path / "g.pt")
    common = (
        "dataset=custom",
        f"dataset.path={tmp_path / 'g.pt'}",
        "partition=whole",
        "method=local",
        "model.hidden=32",
    )
    for rule, weight in (("unique", data.edge_weight), ("ignore", None)):
        ours, plain = [], []
        for seed in SEEDS:
            more = (f"seed={seed}", f"federation.rounds={ROUNDS}", f"dataset.edge_weights={rule}")
            summary = run_inline(tmp_path / f"{rule}-{seed}", *common, *more).summary
            ours.append(summary["test_at_best_validation"])
            plain.append(plain_accuracy(data, seed, weight))
        assert 0.8 < np.mean(plain) < 0.99, plain
        assert abs(np.mean(ours) - np.mean(plain)) < 0.01, (rule, ours, plain)
