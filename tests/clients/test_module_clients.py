"""Clients whose network is a module of PyG: what is trained, sent, kept and exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clients.masked import MaskedClient
from tiny_clients import CLASSES, FEATURES, cohort_of, dense_features, tiny_client
from torch_geometric.nn import GAT

from clients.fedgcn import FedGcnClient
from clients.fedgnn_subgraph import SimilarNodesClient
from clients.fedsg import FedSGClient
from clients.subgraph import SubgraphClient
from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModuleSettings, OptimizerSettings
from subfl_flower.models.stacked_gnn import layer_parameters
from subfl_flower.runtime.state import MemoryStore

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
    return family(
        cohort=cohort_of(*hosted, chunk=chunk),
        settings=family.Settings(**settings),
        model=model,
        optimizer=OptimizerSettings(name="adam", lr=0.05, weight_decay=0.01),
        seed=7,
        store=MemoryStore(),
    )


def received(cohort: SubgraphClient, clients: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((clients, *shape)).astype(np.float32) for shape in cohort.shared_shapes.values()]


def config(server_round: int, clients: int, epochs: int) -> dict[str, Any]:
    return {"clients": list(range(clients)), "round": server_round, "local_epochs": epochs}


def test_training_is_a_plain_loop_of_pytorch_and_running_means_stay_between_rounds() -> None:
    """Two rounds of three steps against a GAT and ``torch.optim.Adam``, parameters being replaced in between."""
    hosted = [tiny_client(0, 9), tiny_client(1, 6)]
    cohort = client(*hosted)
    modules = [GAT(in_channels=FEATURES, out_channels=CLASSES, **ARGUMENTS) for _ in hosted]
    assert cohort.parameter_names == tuple(name for name, _ in modules[0].named_parameters())
    optimizers = [torch.optim.Adam(module.parameters(), lr=0.05, weight_decay=0.01) for module in modules]
    for server_round in (1, 2):
        sent = received(cohort, 2, server_round)
        arrays, _, metrics = cohort.fit(sent, config(server_round, 2, 3))
        assert metrics["failures"] == "{}" and len(arrays) == len(cohort.parameter_names)
        for c, (graph, module, optimizer) in enumerate(zip(hosted, modules, optimizers, strict=True)):
            x, edges = torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.edge_index)
            labels, train = torch.from_numpy(graph.labels), torch.from_numpy(graph.roles == TRAIN)
            with torch.no_grad():
                for parameter, value in zip(module.parameters(), sent, strict=True):
                    parameter.copy_(torch.from_numpy(value[c]))
            module.train()
            for _ in range(3):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(x, edges)[train], labels[train])
                loss.backward()
                optimizer.step()
            assert metrics["train_loss"][c] == pytest.approx(loss.item(), abs=1e-5)
            for parameter, values in zip(module.parameters(), arrays, strict=True):
                np.testing.assert_allclose(values[c], parameter.detach().numpy(), atol=1e-5)
            module.eval()
            right = (module(x, edges).argmax(1) == labels)[torch.from_numpy(graph.roles == 2)].float().mean()
            assert metrics["test"][c] == pytest.approx(right.item(), abs=1e-6)
    state = cohort.store.open(cohort.cohort.client_ids, cohort._state_shapes)
    for c, module in enumerate(modules):
        for name, value in module.named_buffers():
            np.testing.assert_allclose(state[f"personal.{name}"][c].numpy(), value.numpy(), atol=1e-5)
    assert state["personal.norms.0.module.num_batches_tracked"].tolist() == [6, 6]


def test_exported_models_hold_buffers_and_can_be_loaded_by_pytorch() -> None:
    cohort = client(tiny_client(0, 9))
    arrays, _, _ = cohort.fit(received(cohort, 1), config(1, 1, 2))
    (model,) = cohort.best_models().values()
    assert list(model) == [*cohort.parameter_names, *BUFFERS] and not set(BUFFERS) & set(cohort.parameter_names)
    module = GAT(in_channels=FEATURES, out_channels=CLASSES, **ARGUMENTS)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in model.items()})
    assert module.norms[0].module.num_batches_tracked.item() == 2
    np.testing.assert_array_equal(module.convs[0].lin.weight.detach().numpy(), arrays[3][0])


@pytest.mark.parametrize("family", [SubgraphClient, MaskedClient])
def test_numbers_do_not_depend_on_the_chunk(family: type[SubgraphClient]) -> None:
    model = ModuleSettings.model_validate({**MODEL.model_dump(), "dropout": 0.4})
    hosted = [tiny_client(c, 6 + 2 * c) for c in range(3)]
    single, whole = (client(*hosted, family=family, chunk=chunk, model=model) for chunk in (1, "all"))
    for server_round in (1, 2):
        sent = received(single, 3, server_round)
        arrays, _, _ = single.fit(sent, config(server_round, 3, 2))
        expected, _, _ = whole.fit(sent, config(server_round, 3, 2))
        for values, right in zip(arrays, expected, strict=True):
            np.testing.assert_allclose(values, right, atol=1e-5)


def test_masks_are_on_parameters_of_two_dimensions_and_more() -> None:
    cohort = client(tiny_client(0, 9, lacking=[2]), family=MaskedClient, mask_threshold=0.97, mask_l1=1e-3)
    masked = [f"convs.{layer}.{name}" for layer in (0, 1) for name in ("att_src", "att_dst", "lin.weight")]
    assert [name.removesuffix(".mask") for name in cohort.personal_shapes() if name.endswith(".mask")] == masked
    arrays, _, metrics = cohort.fit(received(cohort, 1), config(1, 1, 3))
    sent = dict(zip((*cohort.parameter_names, *cohort.extra_uploads), arrays, strict=True))
    state = cohort.store.open(cohort.cohort.client_ids, cohort._state_shapes)
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
    assert cohort.own_parameters() == tuple(own)
    assert not set(own) & set(cohort.parameter_names)
    arrays, _, _ = cohort.fit(received(cohort, 1), config(1, 1, 2))
    assert len(arrays) == 10 - len(own)


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
        (FedGcnClient, "fedgcn", "gcn"),
        (FedSGClient, "fedsg", "decoupled"),
        (SimilarNodesClient, "fedgnn_subgraph", "gcn or sage or decoupled"),
    ],
)
def test_methods_that_need_a_network_of_their_own_refuse_modules(
    family: type[SubgraphClient], method: str, networks: str
) -> None:
    with pytest.raises(SubflError, match=f"^method={method} is for model={networks}, not for model=module$"):
        family.check_model(MODEL, method)
