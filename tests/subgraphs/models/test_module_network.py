from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from own_modules import Tied
from tiny_clients import CLASSES, FEATURES, dense_features, tiny_client
from torch_geometric.nn import GAT

from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModuleSettings
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.models.choices import graph_network, network_class
from subfl_flower.subgraphs.models.module_network import ModuleNetwork

GAT_ARGUMENTS: dict[str, Any] = {"hidden_channels": 8, "num_layers": 2, "heads": 2, "norm": "batch_norm"}
PATH = "torch_geometric.nn.GAT"


def settings(target: str, **arguments: Any) -> ModuleSettings:
    return ModuleSettings.model_validate({"name": "module", "_target_": target, **arguments})


def network(target: str, features: int = FEATURES, outputs: int = CLASSES, **arguments: Any) -> ModuleNetwork:
    found = graph_network(settings(target, **arguments), features, outputs)
    assert isinstance(found, ModuleNetwork)
    return found


def stacked(found: ModuleNetwork, clients: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Different random parameters for every client, and initial buffers."""
    generator = torch.Generator().manual_seed(seed)
    buffers = {name: torch.from_numpy(value) for name, value in found.initial_buffers_of(0).items()}
    return {
        **{name: torch.randn(clients, *shape, generator=generator) for name, shape in found.shapes.items()},
        **{name: torch.stack([value] * clients) for name, value in buffers.items()},
    }


def path_of_three(weight: list[float] | None) -> ClientGraph:
    """0 - 1 - 2 with the features (1, 0), (0, 1), (2, 2)."""
    return replace(
        tiny_client(0, 3),
        features=np.array([[1, 0], [0, 1], [2, 2]], np.float32),
        edge_index=np.array([[0, 1, 1, 2], [1, 0, 2, 1]]),
        edge_weight=None if weight is None else np.array(weight, np.float32),
    )


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        # X + 2 A X: (1, 0) + 2 (0, 1); (0, 1) + 2 ((1, 0) + (2, 2)); (2, 2) + 2 (0, 1)
        (None, [[1, 2], [6, 5], [2, 4]]),
        # Edges of weight 3 and 0.5: (1, 0) + 6 (0, 1); (0, 1) + 6 (1, 0) + 1 (2, 2); (2, 2) + 1 (0, 1)
        ([3, 3, 0.5, 0.5], [[1, 6], [8, 3], [2, 3]]),
    ],
)
def test_a_hand_written_module_computes_for_each_client_with_its_own_parameters(
    weight: list[float] | None, expected: list[list[float]]
) -> None:
    found = network("own_modules.Sums", 2, 1, scale=2.0)
    assert found.shapes == {"weight": (2, 1)} and found.weight_matrices == ("weight",)
    assert found.reads_edge_weights(found.settings)
    alone = replace(path_of_three(None), client_id=1, node_ids=np.arange(1), features=np.array([[5, 7]], np.float32))
    alone = replace(alone, edge_index=np.zeros((2, 0), np.int64))
    parameters = {"weight": torch.tensor([[[1.0], [10.0]], [[2.0], [-1.0]]])}
    outputs = found(parameters, found.chunk([path_of_three(weight), alone]))
    by_hand = [[a + 10 * b] for a, b in expected]
    torch.testing.assert_close(outputs, torch.tensor([by_hand, [[3.0], [0.0], [0.0]]]))


@pytest.mark.parametrize("target", ["own_modules.Unweighted", PATH])
def test_weights_of_edges_do_not_reach_a_module_that_does_not_use_them(target: str) -> None:
    assert not network_class(settings(target)).reads_edge_weights(settings(target, hidden_channels=8, num_layers=2))
    convolution = settings("torch_geometric.nn.GCNConv")
    assert network_class(convolution).reads_edge_weights(convolution)
    found = network("own_modules.Unweighted", 2, 2)
    identity = {"lin.weight": torch.eye(2)[None]}
    for weight in (None, [3, 3, 0.5, 0.5]):
        outputs = found(identity, found.chunk([path_of_three(weight)]))  # type: ignore[arg-type]
        torch.testing.assert_close(outputs, torch.tensor([[[0.0, 1], [3, 2], [0, 1]]]))


@pytest.mark.parametrize("sparse", [False, True])
def test_pygs_gat_answers_as_it_does_by_itself(sparse: bool) -> None:
    found = network(PATH, **GAT_ARGUMENTS)
    graphs = [tiny_client(c, size, sparse=sparse) for c, size in enumerate((7, 4, 12))]
    parameters = stacked(found, 3)
    outputs = found(parameters, found.chunk(graphs))
    assert outputs.shape == (3, 12, CLASSES)
    for c, graph in enumerate(graphs):
        module = GAT(in_channels=FEATURES, out_channels=CLASSES, **GAT_ARGUMENTS).eval()
        module.load_state_dict({name: value[c] for name, value in parameters.items()})
        right = module(torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.edge_index))
        torch.testing.assert_close(outputs[c, : graph.num_nodes], right, atol=1e-5, rtol=1e-5)
        assert not outputs[c, graph.num_nodes :].any()


def test_nodes_that_are_not_a_clients_own_are_heard_and_have_no_output() -> None:
    found = network("own_modules.Unweighted", 2, 2)
    local = found.local_graph(path_of_three(None), num_own=2)
    outputs = found({"lin.weight": torch.eye(2)[None]}, found.stacked([local]))
    torch.testing.assert_close(outputs, torch.tensor([[[0.0, 1], [3, 2]]]))


def test_initial_values_are_the_modules_own_and_follow_from_the_seed_alone() -> None:
    found = network(PATH, **GAT_ARGUMENTS)
    before = torch.get_rng_state()
    first = found.initial_of(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = network(PATH, **GAT_ARGUMENTS).initial_of(3), found.initial_of(4)
    with torch.random.fork_rng():
        torch.manual_seed(int(shared_generator(3, "initial model").integers(2**63)))
        module = GAT(in_channels=FEATURES, out_channels=CLASSES, **GAT_ARGUMENTS)
    assert list(first) == [name for name, _ in module.named_parameters()]
    for name, value in module.named_parameters():
        np.testing.assert_array_equal(first[name], value.detach().numpy())
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["convs.0.lin.weight"], other["convs.0.lin.weight"])


def test_dropout_depends_on_client_and_step_alone_and_leaves_global_numbers_alone() -> None:
    found = network(PATH, hidden_channels=8, num_layers=2, dropout=0.5)
    graphs = [tiny_client(c, size) for c, size in enumerate((7, 4))]
    parameters = stacked(found, 2)
    cpu = torch.device("cpu")

    def steps(chosen: list[int]) -> list[torch.Tensor]:
        generators = [np.random.default_rng(c) for c in chosen]
        chunk = found.chunk([graphs[c] for c in chosen])
        own = {name: value[chosen] for name, value in parameters.items()}
        return [found(own, chunk, found.training_draws(chunk, generators, cpu)) for _ in range(2)]

    before = torch.get_rng_state()
    together, alone = steps([0, 1]), steps([1])
    assert torch.equal(torch.get_rng_state(), before)
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(both[1, :4], one[0])
    assert not torch.allclose(together[0], together[1])
    assert not torch.allclose(together[0], found(parameters, found.chunk(graphs)))


def test_running_statistics_of_a_batch_norm_are_those_of_each_clients_own_steps() -> None:
    found = network(PATH, **GAT_ARGUMENTS)
    kept = {"running_mean": (8,), "running_var": (8,), "num_batches_tracked": ()}
    assert found.buffer_shapes == {f"norms.0.module.{name}": shape for name, shape in kept.items()}
    assert not set(found.buffer_shapes) & set(found.shapes)
    graphs = [tiny_client(c, size) for c, size in enumerate((7, 5))]
    parameters, chunk = stacked(found, 2), found.chunk(graphs)
    generators = [np.random.default_rng(c) for c in range(2)]
    modules = []
    for c in range(2):
        modules.append(GAT(in_channels=FEATURES, out_channels=CLASSES, **GAT_ARGUMENTS).train())
        modules[c].load_state_dict({name: value[c] for name, value in parameters.items()})
    for _ in range(3):
        found(parameters, chunk, found.training_draws(chunk, generators, torch.device("cpu")))
        for module, graph in zip(modules, graphs, strict=True):
            module(torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.edge_index))
    after = {name: parameters[name].clone() for name in found.buffer_shapes}
    for c, module in enumerate(modules):
        for name, value in module.named_buffers():
            torch.testing.assert_close(after[name][c], value.float(), atol=1e-6, rtol=1e-5)
    assert after["norms.0.module.num_batches_tracked"].tolist() == [3, 3]
    found(parameters, chunk)
    assert all(torch.equal(parameters[name], value) for name, value in after.items())  # evaluation changes nothing


def test_buffers_that_are_assigned_or_counted_are_kept_and_what_is_fixed_is_not_trained() -> None:
    found = network("own_modules.Counting")
    assert list(found.shapes) == ["lin.weight"]
    assert found.buffer_shapes == {"offset": (CLASSES,), "assigned": (2,), "counted": ()}
    initial = found.initial_buffers_of(0)
    assert {value.dtype for value in initial.values()} == {np.dtype("float32")} and initial["counted"] == 7
    assert initial["offset"].min() > 0 and not np.array_equal(initial["offset"], found.initial_buffers_of(1)["offset"])
    graph = tiny_client(0, 6)
    parameters, chunk = stacked(found, 1), found.chunk([graph])
    for _ in range(2):
        found(parameters, chunk, [0])
    assert parameters["counted"].tolist() == [9]
    torch.testing.assert_close(parameters["assigned"], torch.full((1, 2), 2 * float(graph.features.sum())))
    np.testing.assert_array_equal(parameters["offset"][0], initial["offset"])


def test_shared_parameters_are_one() -> None:
    found = network("own_modules.Tied", 3, 2)
    assert list(found.shapes) == ["first.weight", "last.weight"]
    parameters = {name: value.requires_grad_() for name, value in stacked(found, 1).items()}
    graph = replace(tiny_client(0, 4), features=np.eye(4, 3, dtype=np.float32))
    found(parameters, found.chunk([graph])).sum().backward()
    module = Tied(3, 2)
    module.load_state_dict(
        {
            "first.weight": parameters["first.weight"][0].detach(),
            "second.weight": parameters["first.weight"][0].detach(),
            "last.weight": parameters["last.weight"][0].detach(),
        }
    )
    module(torch.eye(4, 3), torch.zeros(2, 0, dtype=torch.long)).sum().backward()
    torch.testing.assert_close(parameters["first.weight"].grad[0], module.first.weight.grad)  # type: ignore[index]


def test_what_a_module_is_compared_by() -> None:
    features = np.array([[1, 0], [0, 1], [2, 2]], np.float32)
    edges = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    embedding = network("own_modules.Unweighted", 2, 5)
    assert embedding.embedding_width == 2
    # The mean of (0, 1), (3, 2) and (0, 1), whatever the parameters are.
    found = embedding.probe(edges, features).embed(stacked(embedding, 2))
    torch.testing.assert_close(found, torch.tensor([[1, 4 / 3]] * 2))
    plain = network("own_modules.Sums", 2, 3)
    assert plain.embedding_width == 3
    # X + A X: (1, 1), (3, 3), (2, 3), of mean (2, 7/3), times the rows (1, 2, 3) and (0, 0, 3).
    weight = torch.tensor([[[1.0, 2, 3], [0, 0, 3]]])
    torch.testing.assert_close(plain.probe(edges, features).embed({"weight": weight}), torch.tensor([[2, 4, 13.0]]))


def test_settings_are_written_as_they_are_read() -> None:
    written = settings(PATH, **GAT_ARGUMENTS)
    assert written.arguments == GAT_ARGUMENTS
    for mode in ("json", "python"):
        plain = written.model_dump(mode=mode)  # type: ignore[arg-type]
        assert plain == {"name": "module", "_target_": PATH, **GAT_ARGUMENTS}
        assert ModuleSettings.model_validate(plain) == written
    assert ModuleSettings.model_validate_json(written.model_dump_json(by_alias=True)) == written


@pytest.mark.parametrize(
    ("target", "arguments", "sentence"),
    [
        ("no_such_package.Net", {}, r"^model\._target_: cannot import 'no_such_package\.Net' \(ModuleNotFoundError"),
        ("torch_geometric.nn.GATT", {}, r"^model\._target_: cannot import 'torch_geometric\.nn\.GATT'"),
        ("pathlib.Path", {}, r"^model\._target_: 'pathlib\.Path' is not a subclass of Module"),
        (PATH, {}, r"^model\.hidden_channels: a value is required by torch_geometric\.nn\.GAT"),
        ("own_modules.Needy", {}, r"^model\.heads: a value is required by own_modules\.Needy"),
        ("own_modules.Sums", {"depth": 2}, r"^model\.depth: own_modules\.Sums has no such argument; it has: num_feat"),
        ("own_modules.Unweighted", {"in_channels": 3}, r"^model\.in_channels: the data and the task say it"),
        ("own_modules.Odd", {}, r"^model\._target_: own_modules\.Odd has no argument for the width of features"),
    ],
)
def test_what_cannot_be_made_is_said_before_there_are_data(
    target: str, arguments: dict[str, Any], sentence: str
) -> None:
    chosen = settings(target, **arguments)
    with pytest.raises(SubflError, match=sentence):
        network_class(chosen).check(chosen)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            "own_modules.Broken",
            r"^model\._target_: own_modules\.Broken\(in_channels=6, out_channels=3\) cannot be made",
        ),
        ("own_modules.Lazy", r"own_modules\.Lazy makes lin\.weight only when it first computes"),
        (
            "own_modules.Double",
            r"own_modules\.Double has lin\.weight of type torch\.float64; it must be torch\.float32",
        ),
        ("own_modules.LargeNumbers", r"has ids of type torch\.int64, whose values torch\.float32 cannot hold"),
        ("torch_geometric.nn.SGConv", None),
    ],
)
def test_what_cannot_be_trained_is_refused(target: str, sentence: str | None) -> None:
    if sentence is None:
        assert network(target).shapes == {"lin.weight": (CLASSES, FEATURES), "lin.bias": (CLASSES,)}
        return
    with pytest.raises(SubflError, match=sentence):
        network(target)


def test_answers_of_another_shape_are_refused() -> None:
    for target, sentence in (
        ("own_modules.Narrow", r"own_modules\.Narrow answers with 2 values a node, where 3 belong"),
        ("own_modules.Pair", r"own_modules\.Pair\.forward answers with tuple for 4 nodes"),
    ):
        found = network(target)
        with pytest.raises(SubflError, match=sentence):
            found(stacked(found, 1), found.chunk([tiny_client(0, 4)]))
