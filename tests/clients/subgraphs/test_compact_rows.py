"""Clients that work on the rows of the first layer which their own data reach, against clients that work on all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tiny_clients import FEATURES, best_models, cohort_of, dense_features, family_of, tiny_client, trained

from subfl_flower.clients.subgraphs.fedprox import FedProxClient
from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.fedsg import FedSGClient
from subfl_flower.clients.subgraphs.local_weights import LocalWeights
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.clients.subgraphs.subpfed import SubPFedClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import (
    APPNPSettings,
    DecoupledSettings,
    GATSettings,
    GCNIISettings,
    GINSettings,
    MLPSettings,
    ModelSettings,
    OptimizerSettings,
    SGCSettings,
)
from subfl_flower.node.state import MemoryStore, OwnRows, StateStore
from subfl_flower.wire.array_format import Stack

LACKING = ([1, 4], [], [0, 2, 3], [2, 3, 4, 5])
"""Features that each client lacks; the last one has none of a block of columns."""
MODELS: dict[str, Any] = {
    name: ModelSettings(name=name, hidden=5, dropout=0.3)  # type: ignore[arg-type]
    for name in ("gcn", "sage")
} | {
    "decoupled": DecoupledSettings(name="decoupled", hidden=5, dropout=0.3, encoding=3),
    "gat": GATSettings(name="gat", hidden=6, heads=2, dropout=0.3),
    "gin": GINSettings(name="gin", hidden=5, dropout=0.3),
    "sgc": SGCSettings(name="sgc"),
    "mlp": MLPSettings(name="mlp", hidden=5, dropout=0.3),
    "appnp": APPNPSettings(name="appnp", hidden=5, hops=2, dropout=0.3),
    "gcnii": GCNIISettings(name="gcnii", hidden=5, layers=2, dropout=0.3),
}
GRAPH = {"random_blocks": 2, "random_block_nodes": 8}
MASKED = {**GRAPH, "sparsity": None, "mask_l1": 5e-6}
EMBEDDED = {**GRAPH, "random_graph": "sbm"}
FAMILIES: dict[str, tuple[type[SubgraphClient], dict[str, Any]]] = {
    "fedavg": (SubgraphClient, {"weight_decay": 0}),
    "fedprox": (FedProxClient, {"weight_decay": 0, "proximal": 0.2}),
    "personal first layer": (SubgraphClient, {"weight_decay": 0, "personal_layers": ("conv1",)}),
    "subpfed": (SubPFedClient, {**EMBEDDED, "proximal": 0.2}),
    "fedpub": (FedPUBClient, {**MASKED, "mask_threshold": 0.97, "mask_l1": 1e-3, "proximal": 0.2}),
    "fedpub, weights decay": (FedPUBClient, {**MASKED, "mask_threshold": 0.97, "weight_decay": 0.1}),
    "fedpub without masks": (FedPUBClient, {**GRAPH, "masks": False}),
    "fedpub as released": (FedPUBClient, {**MASKED, "variant": "released", "weight_decay": 0}),
    "fedpub, personal first layer": (FedPUBClient, {**MASKED, "personal_layers": ("conv1",)}),
    "fedpub, a share of weights": (FedPUBClient, {**GRAPH, "sparsity": 0.5, "proximal": 0.2}),
}


def graphs(sparse: bool = True) -> list[ClientGraph]:
    made = [tiny_client(c, 6 + c, lacking=lacking) for c, lacking in enumerate(LACKING)]
    if sparse:
        for graph in made:
            object.__setattr__(graph, "features", sp.csr_array(dense_features(graph)))
    return made


def clients(
    case: str, hosted: Sequence[ClientGraph], *, compact: bool = True, chunk: int | str = 1, **more: Any
) -> SubgraphClient:
    family, settings = FAMILIES.get(case, (FedSGClient, GRAPH))
    if not compact:
        family = type(family.__name__, (family,), {"reached_inputs": lambda self: None})
    more.setdefault("model", MODELS["gcn"])
    more.setdefault("optimizer", OptimizerSettings(name="adam", lr=0.05, weight_decay=0.5))
    return family_of(family, cohort_of(*hosted, chunk=chunk), settings, **more)


def sent_to(client: SubgraphClient, seed: int = 0) -> Stack:
    rng, hosted = np.random.default_rng(seed), len(client.cohort.graphs)
    return {
        name: rng.standard_normal((hosted, *spec.shape)).astype(np.float32)
        for name, spec in client.downloads(client.run).items()
    }


def outcome(client: SubgraphClient, rounds: Sequence[int] = (1, 2, 3)) -> Stack:
    """Everything that leaves some clients: uploads and figures of every round, and their best models."""
    found: Stack = {}
    for server_round in rounds:
        result = trained(client, sent_to(client, server_round), server_round, epochs=2)
        assert not result.failures
        found |= {f"{server_round} {name}": np.asarray(value) for name, value in result.arrays.items()}
        found |= {f"{server_round} {name}": value for name, value in result.metrics.items()}
    for client_id, model in best_models(client).items():
        found |= {f"best {client_id} {name}": value for name, value in model.items()}
    return found


def require_equal(found: Stack, expected: Stack, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=atol, rtol=atol, err_msg=name)


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("case", FAMILIES)
def test_results_are_those_of_work_on_all_rows(case: str, sparse: bool) -> None:
    one, other = clients(case, graphs(sparse)), clients(case, graphs(sparse), compact=False)
    assert one.compact and not other.compact
    require_equal(outcome(one), outcome(other), 2e-6)


NEXT_TO_GCN = ("gat", "gin", "sgc", "mlp", "appnp", "gcnii")


@pytest.mark.parametrize(
    ("case", "model"),
    [
        *[("fedavg", "sage"), ("fedavg", "decoupled"), ("fedsg", "decoupled")],
        *[(case, model) for case in ("fedavg", "fedpub", "fedpub, a share of weights") for model in NEXT_TO_GCN],
    ],
)
def test_other_networks_work_on_the_rows_of_their_inputs(case: str, model: str) -> None:
    one, other = (clients(case, graphs(), compact=compact, model=MODELS[model]) for compact in (True, False))
    assert one.compact and not other.compact
    require_equal(outcome(one), outcome(other), 2e-6)


@pytest.mark.parametrize("case", ["fedavg", "fedpub"])
@pytest.mark.parametrize("chunk", [2, "all"])
def test_a_chunk_is_as_wide_as_its_largest_client_and_changes_nothing(case: str, chunk: int | str) -> None:
    require_equal(outcome(clients(case, graphs(), chunk=chunk)), outcome(clients(case, graphs())), 1e-5)


def test_weight_decay_and_penalties_on_unreached_rows_keep_all_rows() -> None:
    decayed = clients("fedavg", graphs())
    assert decayed.compact  # 0 in the settings counts before the optimiser's
    assert not family_of(SubgraphClient, cohort_of(*graphs()), optimizer=OptimizerSettings(name="adam")).compact
    # Without rows of features masks begin at one everywhere, and the penalty moves them.
    assert not clients("fedpub", graphs(), model=MODELS["sage"]).compact


def test_own_objectives_and_own_graphs_work_on_all_rows_unless_they_say_more() -> None:
    class OwnGraphs(SubgraphClient):
        def local_graph(self, position: int) -> Any:
            return super().local_graph(position)

    class Penalised(LocalWeights):
        def add_penalty_gradients(self, gradients: Any, shared: Any, *rest: Any) -> None:
            gradients["conv1.weight"].add_(shared["conv1.weight"].sign())

    class OwnObjective(SubgraphClient):
        def local_weights(self) -> LocalWeights:
            return Penalised(self.model, self.settings, self.seed, self.cohort.device)

    for family in (OwnGraphs, OwnObjective):
        assert not family_of(family, cohort_of(*graphs()), {"weight_decay": 0}).compact


def test_moments_and_masks_have_a_clients_own_rows() -> None:
    shapes = clients("fedpub", graphs()).state_shapes
    counts = tuple(FEATURES - len(lacking) for lacking in LACKING)
    first = [name for name in shapes if name.endswith(("conv1.weight", "conv1.weight.mask"))]
    assert len(first) == 2 * 2 + 1 + 1  # moments of both, the mask, the best weight
    assert all(shapes[name] == OwnRows(counts, (5,)) for name in first)
    shapes = clients("subpfed", graphs()).state_shapes
    assert shapes["exp_avg.conv1.weight"] == OwnRows(counts, (5,)) and shapes["best.conv1.weight"] == (FEATURES, 5)


@pytest.mark.parametrize("case", ["fedpub", "subpfed"])
def test_a_clients_state_goes_on_in_another_cohort(case: str) -> None:
    """Client 2 trains with 0 and 1, moves to a node with the larger 3, and has the numbers of one that never moved."""
    hosted = graphs()
    before, unmoved = clients(case, hosted[:3], chunk="all"), clients(case, [hosted[2]])
    after = clients(case, [hosted[3], hosted[2]], chunk="all")
    for client, row in ((before, 2), (unmoved, 0)):
        full = sent_to(before, 1)
        trained(client, {name: value[2:] if row == 0 else value for name, value in full.items()}, 1, epochs=2)
    moved = before.open_state().export_row(2)
    assert {name: value.shape for name, value in moved.items()} == {
        name: value.shape for name, value in unmoved.open_state().export_row(0).items()
    }
    after.open_state().import_row(1, moved)
    both = sent_to(after, 2)
    found = trained(after, both, 2, epochs=2).arrays
    expected = trained(unmoved, {name: value[1:] for name, value in both.items()}, 2, epochs=2).arrays
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[name])[1], np.asarray(value)[0], atol=1e-5, err_msg=name)


def test_a_client_that_lacks_every_feature_trains_its_biases() -> None:
    empty = tiny_client(0, 6, lacking=range(FEATURES))
    for case in ("fedavg", "fedpub"):
        one, other = clients(case, [empty]), clients(case, [empty], compact=False)
        assert one.compact and one.compact.of([0]).index.shape == (1, 0)
        found = outcome(one)
        require_equal(found, outcome(other), 2e-6)
        assert np.isfinite(found["3 train_loss"]).all()


def test_what_a_failed_client_did_to_its_rows_is_not_kept() -> None:
    store: StateStore = MemoryStore()
    client = clients("fedpub", graphs(), store=store)
    trained(client, sent_to(client), 1)
    before = client.open_state().export_row(0)
    bad = {name: np.full_like(value, np.nan) for name, value in sent_to(client).items()}
    assert set(trained(client, bad, 2).failures) == {0, 1, 2, 3}
    for name, value in client.open_state().export_row(0).items():
        np.testing.assert_array_equal(value, before[name])
    with client.open_state().rows([0, 3], torch.device("cpu")) as rows:
        assert rows["personal.conv1.weight.mask"].shape == (2, 4, 5)  # as wide as the larger of the two
        assert not rows["personal.conv1.weight.mask"][1, 2:].any()
