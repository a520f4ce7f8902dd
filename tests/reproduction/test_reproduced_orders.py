"""The order of methods on Cora that docs/results.md reports, as means over three seeds: ``pytest -m slow``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from run_outcomes import Outcome
from torch import Tensor

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import Parameters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def figure(inline_run: Callable[..., Outcome], cora_root: Path) -> Callable[..., float]:
    """The mean over seeds 0, 1, 2 of a method's test figure at its best validation round, in %."""

    def mean(method: str, *overrides: str) -> float:
        common = (f"method={method}", "dataset=cora", f"data.root={cora_root}", "record.client_models=false")
        outcomes = [inline_run(*common, *overrides, f"seed={seed}") for seed in (0, 1, 2)]
        return float(np.mean([100 * outcome.summary["test_at_best_validation"] for outcome in outcomes]))

    return mean


@pytest.mark.parametrize(("name", "local_first"), [("cora_disjoint_10", True), ("cora_overlapping_10", False)])
def test_fedpub_is_above_local_and_fedavg_on_its_own_partitions(
    figure: Callable[..., float], reference_partitions: Path, name: str, local_first: bool
) -> None:
    partition = ("partition=given", f"partition.file={reference_partitions / name}.npz")
    fedpub, local, fedavg = (figure(method, *partition) for method in ("fedpub", "local", "fedavg"))
    assert fedpub > max(local, fedavg) + 1
    assert (local > fedavg) is local_first


def test_subpfed_is_four_points_above_fedavg_and_not_below_fedpub(figure: Callable[..., float]) -> None:
    partition = ("partition=overlap_rate", "partition.clients=15")
    subpfed, fedpub, fedavg = (figure(method, *partition) for method in ("subpfed", "fedpub", "fedavg"))
    assert subpfed >= fedpub and subpfed >= fedavg + 4


def test_fedpub_predicts_links_better_than_local_and_fedavg(figure: Callable[..., float]) -> None:
    options = ("task=link_prediction", "partition=metis", "partition.clients=10")
    fedpub, local, fedavg = (figure(method, *options) for method in ("fedpub", "local", "fedavg"))
    assert fedpub >= max(local, fedavg)


@pytest.mark.parametrize("name", ["cora_disjoint_10", "cora_overlapping_10"])
def test_fedgcn_is_within_one_and_a_half_points_of_fedavg_on_full_information(
    figure: Callable[..., float], reference_partitions: Path, name: str
) -> None:
    options = ("partition=given", f"partition.file={reference_partitions / name}.npz")
    fedgcn, full = (figure(method, *options) for method in ("fedgcn", "fedavg_whole_graph"))
    assert abs(fedgcn - full) < 1.5


def test_generated_neighbours_are_nearer_to_the_true_ones_than_means_on_photo(
    inline_run: Callable[..., Outcome], photo_root: Path
) -> None:
    found = inline_run(
        *("method=fedsage_plus", "dataset=photo", "partition=metis", "partition.clients=10"),
        *(f"data.root={photo_root}", "federation.rounds=1", "record.client_models=false"),
    )
    generator = found.summary["generator"]
    assert generator["clients_measured"] == 10
    assert generator["distance"] < 0.8 * min(generator["distance_of_mean"], generator["distance_of_neighbours"])


def one_class_share(
    inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, method: str, *overrides: str
) -> np.ndarray:
    """The share of ten clients that, as received, predict one class for all of their nodes, in each of 25 rounds."""
    found: list[list[bool]] = []
    measured = SubgraphClient.outputs

    def watched(client: SubgraphClient, effective: Parameters, chunk: GraphChunk) -> Tensor:
        outputs = measured(client, effective, chunk)
        classes = [own[:nodes].argmax(1) for own, nodes in zip(outputs, chunk.num_nodes, strict=True)]
        found.append([len(torch.unique(each)) == 1 for each in classes])
        return outputs

    with monkeypatch.context() as patched:
        patched.setattr(SubgraphClient, "outputs", watched)
        inline_run(f"method={method}", *overrides, "federation.rounds=25", "runtime.threads=1")
    received = np.concatenate(found[::2])  # a chunk is measured as received, and again after its training
    assert len(received) == 25 * 10
    return received.reshape(25, 10).mean(1)


@pytest.mark.parametrize("normalised", ["true", "false"])
@pytest.mark.parametrize("seed", [0, 1])
def test_clients_do_not_fall_for_one_class_after_local_ones_have_left_it(
    inline_run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    cora_root: Path,
    reference_partitions: Path,
    normalised: str,
    seed: int,
) -> None:
    """From the round on after which fewer than half of Local's clients do, FED-PUB's never all do."""
    options = (
        *("dataset=cora", f"data.root={cora_root}", f"dataset.row_normalize={normalised}", f"seed={seed}"),
        *("partition=given", f"partition.file={reference_partitions / 'cora_disjoint_10'}.npz"),
    )
    local, fedpub = (one_class_share(inline_run, monkeypatch, method, *options) for method in ("local", "fedpub"))
    left = 1 + int(np.flatnonzero(local >= 0.5)[-1])
    assert left < len(local) and (fedpub[left:] < 1).all()
