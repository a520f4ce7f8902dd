"""Clients whose network is a module of PyG: what is trained, sent, kept and exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_clients import CLASSES, FEATURES, best_models, cohort_of, dense_features, family_of, tiny_client, trained
from torch_geometric.nn import GAT

from subfl_flower.clients.subgraphs.fedgcn import FedGCNClient
from subfl_flower.clients.subgraphs.fedgnn_subgraph import SimilarNodesClient
from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.fedsg import FedSGClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModuleSettings, OptimizerSettings
from subfl_flower.subgraphs.models.stacked_gnn import layer_parameters
from subfl_flower.wire.array_format import Stack

ARGUMENTS: dict[str, Any] = {"hidden_channels": 8, "num_layers": 2, "norm": "batch_norm"}
MODEL = ModuleSettings.model_validate({"name": "module", "_target_": "torch_geometric.nn.GAT", **ARGUMENTS})
BUFFERS = tuple(f"norms.0.module.{name}" for name in ("running_mean", "running_var", "num_batches_tracked"))


def client(
    *hosted: ClientGraph,
    family: type[SubgraphClient] = SubgraphClient,
    chunk: int | str = "all",
    model: ModuleSettings = MODEL,
    **settings: Any,
) -> SubgraphClient:
    adam = OptimizerSettings(name="adam", lr=0.05, weight_decay=0.01)
    return family_of(family, cohort_of(*hosted, chunk=chunk), settings, model=model, optimizer=adam, seed=7)


def shared(cohort: SubgraphClient) -> tuple[str, ...]:
    """Names of the parameters that travel."""
    return tuple(cohort.shared(cohort.run))


def received(cohort: SubgraphClient, clients: int, seed: int = 0) -> Stack:
    rng = np.random.default_rng(seed)
    shapes = cohort.weights.shared_shapes
    return {name: rng.standard_normal((clients, *shape)).astype(np.float32) for name, shape in shapes.items()}


def test_training_is_a_plain_loop_of_pytorch_and_running_means_stay_between_rounds() -> None:
    """Two rounds of three steps against a GAT and ``torch.optim.Adam``, parameters being replaced in between."""
    hosted = [tiny_client(0, 9), tiny_client(1, 6)]
    cohort = client(*hosted)
    modules = [GAT(in_channels=FEATURES, out_channels=CLASSES, **ARGUMENTS) for _ in hosted]
    assert shared(cohort) == tuple(name for name, _ in modules[0].named_parameters())
    optimizers = [torch.optim.Adam(module.parameters(), lr=0.05, weight_decay=0.01) for module in modules]
    for server_round in (1, 2):
        sent = received(cohort, 2, server_round)
        result = trained(cohort, sent, server_round, epochs=3)
        assert result.failures == {} and tuple(result.arrays) == shared(cohort)
        for c, (graph, module, optimizer) in enumerate(zip(hosted, modules, optimizers, strict=True)):
            x, edges = torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.edge_index)
            labels, train = torch.from_numpy(graph.labels), torch.from_numpy(graph.roles == TRAIN)
            with torch.no_grad():
                for parameter, value in zip(module.parameters(), sent.values(), strict=True):
                    parameter.copy_(torch.from_numpy(value[c]))
            module.train()
            for _ in range(3):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(x, edges)[train], labels[train])
                loss.backward()
                optimizer.step()
            assert result.metrics["train_loss"][c] == pytest.approx(loss.item(), abs=1e-5)
            for parameter, values in zip(module.parameters(), result.arrays.values(), strict=True):
                np.testing.assert_allclose(values[c], parameter.detach().numpy(), atol=1e-5)
            module.eval()
            right = (module(x, edges).argmax(1) == labels)[torch.from_numpy(graph.roles == 2)].float().mean()
            assert result.metrics["test"][c] == pytest.approx(right.item(), abs=1e-6)
    state = cohort.open_state()
    for c, module in enumerate(modules):
        for name, value in module.named_buffers():
            np.testing.assert_allclose(state[f"personal.{name}"][c].numpy(), value.numpy(), atol=1e-5)
    assert state["personal.norms.0.module.num_batches_tracked"].tolist() == [6, 6]


def test_exported_models_hold_buffers_and_can_be_loaded_by_pytorch() -> None:
    cohort = client(tiny_client(0, 9))
    result = trained(cohort, received(cohort, 1), epochs=2)
    (model,) = best_models(cohort).values()
    assert list(model) == [*shared(cohort), *BUFFERS] and not set(BUFFERS) & set(shared(cohort))
    module = GAT(in_channels=FEATURES, out_channels=CLASSES, **ARGUMENTS)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in model.items()})
    assert module.norms[0].module.num_batches_tracked.item() == 2
    np.testing.assert_array_equal(module.convs[0].lin.weight.detach().numpy(), result.arrays["convs.0.lin.weight"][0])


@pytest.mark.parametrize("family", [SubgraphClient, FedPUBClient])
def test_numbers_do_not_depend_on_the_chunk(family: type[SubgraphClient]) -> None:
    model = ModuleSettings.model_validate({**MODEL.model_dump(), "dropout": 0.4})
    hosted = [tiny_client(c, 6 + 2 * c) for c in range(3)]
    single, whole = (client(*hosted, family=family, chunk=chunk, model=model) for chunk in (1, "all"))
    for server_round in (1, 2):
        sent = received(single, 3, server_round)
        found, expected = (trained(each, sent, server_round, epochs=2).arrays for each in (single, whole))
        assert list(found) == list(expected)
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)


def test_masks_are_on_parameters_of_two_dimensions_and_more() -> None:
    cohort = client(
        tiny_client(0, 9, lacking=[2]), family=FedPUBClient, sparsity=None, mask_threshold=0.97, mask_l1=1e-3
    )
    masked = [f"convs.{layer}.{name}" for layer in (0, 1) for name in ("att_src", "att_dst", "lin.weight")]
    assert [name.removesuffix(".mask") for name in cohort.weights.personal_shapes if name.endswith(".mask")] == masked
    result = trained(cohort, received(cohort, 1), epochs=3)
    sent, metrics = result.arrays, result.metrics
    state = cohort.open_state()
    zeros = []
    for name in masked:
        kept = np.abs(state[f"personal.{name}.mask"].numpy()) > 0.97
        np.testing.assert_array_equal(sent[name] != 0, kept)
        zeros.append(~kept.ravel())
    assert 0 < np.concatenate(zeros).mean() < 1
    assert metrics["sparsity"] == pytest.approx([np.concatenate(zeros).mean()], abs=1e-6)
    assert not sent["wanted_features"].any() and sent["functional_embedding"].shape == (1, CLASSES)


@pytest.mark.parametrize(
    ("layers", "own"),
    [
        (("convs.1",), [f"convs.1.{name}" for name in ("att_src", "att_dst", "bias", "lin.weight")]),
        (("convs.0.lin",), ["convs.0.lin.weight"]),
        (("norms", "convs.1.lin"), ["norms.0.module.weight", "norms.0.module.bias", "convs.1.lin.weight"]),
        (("convs.1", "convs.1.lin"), [f"convs.1.{name}" for name in ("att_src", "att_dst", "bias", "lin.weight")]),
    ],
)
def test_a_personal_layer_is_named_by_any_beginning_of_its_parameters(layers: tuple[str, ...], own: list[str]) -> None:
    cohort = client(tiny_client(0, 9), personal_layers=layers)
    assert [name for name in cohort.weights.own_shapes if name not in BUFFERS] == own
    assert not set(own) & set(shared(cohort))
    assert len(trained(cohort, received(cohort, 1), epochs=2).arrays) == 10 - len(own)


def test_unknown_layers_and_all_layers_of_a_module_are_refused() -> None:
    layers = "convs, convs.0, convs.0.lin, convs.1, convs.1.lin, norms, norms.0, norms.0.module"
    with pytest.raises(SubflError, match=f"there is no layer 'convs.2'; the model has {layers}$"):
        client(tiny_client(0, 9), personal_layers=("convs.2",))
    with pytest.raises(SubflError, match="all layers are personal; use method=local"):
        client(tiny_client(0, 9), personal_layers=("convs.0", "convs.1", "norms"))
    assert layer_parameters(["weight", "lin.bias"], ["weight"]) == ("weight",)


@pytest.mark.parametrize(
    ("family", "method", "networks"),
    [
        (FedGCNClient, "fedgcn", "gcn"),
        (FedSGClient, "fedsg", "decoupled"),
        (SimilarNodesClient, "fedgnn_subgraph", "gcn or sage or decoupled"),
    ],
)
def test_methods_that_need_a_network_of_their_own_refuse_modules(
    family: type[SubgraphClient], method: str, networks: str
) -> None:
    with pytest.raises(SubflError, match=f"^method={method} is for model={networks}, not for model=module$"):
        family.check_model(MODEL, method)
