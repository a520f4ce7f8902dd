from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist

from subfl_flower.data.graph import TEST, TRAIN, ClientGraph
from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.subgraphs.mending.hidden_neighbours import Impaired, hide_neighbours
from subfl_flower.subgraphs.mending.mending_example import MendingExample, ScaledFeatures, feature_unit
from subfl_flower.subgraphs.mending.neighbour_generator import NeighbourGenerator, NeighbourGeneratorSettings

FEATURES, CLASSES = 6, 3
SMALL = NeighbourGeneratorSettings(latent=4, hidden=3, most_neighbours=2, noise=0.5)
DECODER = NeighbourGenerator.decoder_names


def client(nodes: int = 24, *, sparse: bool = False, seed: int = 0) -> ClientGraph:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((nodes, nodes)) < 0.2, k=1)
    features = rng.random((nodes, FEATURES)).astype(np.float32) * (rng.random((nodes, FEATURES)) < 0.6)
    return ClientGraph(
        client_id=0,
        node_ids=np.arange(nodes),
        features=sp.csr_array(features) if sparse else features,
        edge_index=np.stack(np.nonzero(upper | upper.T)).astype(np.int64),
        labels=rng.integers(0, CLASSES, nodes),
        num_classes=CLASSES,
        roles=np.where(np.arange(nodes) % 2, TEST, TRAIN).astype(np.int8),
        shareable=np.zeros(nodes, dtype=bool),
    )


def path(features: list[list[float]]) -> ClientGraph:
    """0 - 1 - 2 - ..., all training nodes of class 0."""
    nodes = len(features)
    edges = sorted([(v, v + 1) for v in range(nodes - 1)] + [(v + 1, v) for v in range(nodes - 1)])
    return replace(
        client(nodes),
        features=np.array(features, dtype=np.float32),
        edge_index=np.array(edges).T,
        labels=np.zeros(nodes, dtype=np.int64),
        roles=np.full(nodes, TRAIN, dtype=np.int8),
    )


def generator(settings: NeighbourGeneratorSettings = SMALL, classes: int = CLASSES) -> NeighbourGenerator:
    return NeighbourGenerator(settings, FEATURES, classes)


def random_parameters(model: NeighbourGenerator, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """All of them different from zero, and large enough that some nodes get neighbours."""
    drawn = torch.Generator().manual_seed(3)
    return {name: 0.7 * torch.randn(shape, generator=drawn).to(dtype) for name, shape in model.shapes.items()}


def parts(graph: ClientGraph, seed: int = 1) -> tuple[Impaired, MendingExample]:
    impaired = hide_neighbours(graph, 0.3, np.random.default_rng(seed))
    return impaired, MendingExample.of(graph, impaired)


def written_out(
    model: NeighbourGenerator, p: dict[str, torch.Tensor], graph: ClientGraph, impaired: Impaired, noise: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three terms of the loss, node by node and with every generated vector written out, in double precision."""
    unit = np.sqrt(np.mean(np.square(graph.features.astype(np.float64))))
    whole = torch.from_numpy(graph.features.astype(np.float64)) / unit
    seen, missing = impaired.graph, impaired.missing.tolist()
    near: list[list[int]] = [[] for _ in range(seen.num_nodes)]
    for a, b in seen.edge_index.T.tolist():
        near[a].append(b)

    def sage(layer: str, rows: list[torch.Tensor], around: list[list[int]]) -> list[torch.Tensor]:
        zero = torch.zeros_like(rows[0])
        means = [torch.stack([rows[u] for u in us]).mean(0) if us else zero for us in around]
        own, others, bias = (p[f"{layer}.{part}"] for part in ("own", "neighbours", "bias"))
        return [row @ own + mean @ others + bias for row, mean in zip(rows, means, strict=True)]

    inputs = list(whole[impaired.visible])
    latent = [z.relu() for z in sage("encoder2", [h.relu() for h in sage("encoder1", inputs, near)], near)]
    most, width = model.settings.most_neighbours, model.settings.hidden
    count = feature = torch.zeros((), dtype=torch.float64)
    mended, around = list(inputs), [list(us) for us in near]
    for v, z in enumerate(latent):
        expected = F.softplus(z @ p["count.weight"] + p["count.bias"])[0]
        off = (expected - missing[v]).abs()
        count = count + (off**2 / 2 if off < 1 else off - 0.5)
        noisy = z + model.settings.noise * torch.from_numpy(noise[v].astype(np.float64))
        heads = (noisy @ p["heads.weight"] + p["heads.bias"]).relu().view(most, width)
        vectors = heads @ p["output.weight"] + p["output.bias"]
        hidden = whole[impaired.indices[impaired.indptr[v] : impaired.indptr[v + 1]]]
        for vector in vectors[: min(missing[v], most)]:
            feature = feature + torch.stack([(vector - x).square().mean() for x in hidden]).min()
        for vector in vectors[: min(round(expected.item()), most)]:
            around[v].append(len(mended))
            around.append([v])
            mended.append(vector)
    assert len(mended) > len(inputs)
    logits = sage("classifier2", [h.relu() for h in sage("classifier1", mended, around)], around)
    train = [v for v in range(seen.num_nodes) if seen.roles[v] == TRAIN]
    assert seen.labels is not None
    classes = -torch.stack([logits[v].log_softmax(0)[seen.labels[v]] for v in train]).mean()
    return count / len(inputs), feature / len(inputs), classes


@pytest.mark.parametrize("sparse", [False, True])
def test_losses_and_gradients_against_the_formulas_written_out(sparse: bool) -> None:
    model = generator(SMALL.model_copy(update={"count_weight": 0.5, "feature_weight": 2.0, "class_weight": 3.0}))
    graph = client()
    impaired, _ = parts(graph)
    example = MendingExample.of(
        client(sparse=sparse), hide_neighbours(client(sparse=sparse), 0.3, np.random.default_rng(1))
    )
    parameters = random_parameters(model)
    losses, gradients = model.local_gradients(parameters, example, np.random.default_rng(2))

    noise = np.random.default_rng(2).standard_normal((impaired.graph.num_nodes, 4), dtype=np.float32)
    leaves = {name: value.double().requires_grad_() for name, value in parameters.items()}
    terms = written_out(model, leaves, graph, impaired, noise)
    total = 0.5 * terms[0] + 2 * terms[1] + 3 * terms[2]
    expected = torch.autograd.grad(total, list(leaves.values()))
    for found, term in zip(losses, (*terms, total), strict=True):
        assert found.item() == pytest.approx(term.item(), rel=1e-4)
    for name, gradient in zip(leaves, expected, strict=True):
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradients[name].double(), gradient, rtol=1e-3, atol=1e-4)


def test_the_feature_loss_by_hand() -> None:
    """Nodes 0 - 1 - 2 - 3 of which 1 and 3 are hidden; the heads generate (2, 0, ...) and (0, 5, ...) for everyone."""
    rows = [[1.0] + 5 * [0.0], [2, 1, 0, 0, 0, 0], [0.0] * 6, [0, 4, 0, 0, 0, 0]]
    graph = path(rows)
    impaired = Impaired(
        visible=np.array([0, 2]),
        graph=replace(path([rows[0], rows[2]]), edge_index=np.zeros((2, 0), dtype=np.int64)),
        missing=np.array([1, 2]),
        indptr=np.array([0, 1, 3]),
        indices=np.array([1, 1, 3]),
    )
    unit = (22 / 24) ** 0.5
    assert feature_unit(graph.features) == pytest.approx(unit)
    model = generator(NeighbourGeneratorSettings(latent=1, hidden=2, most_neighbours=2, noise=1.0))
    parameters = {name: torch.zeros(shape) for name, shape in model.shapes.items()}
    parameters["heads.bias"] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    parameters["output.weight"] = torch.zeros(2, FEATURES)
    parameters["output.weight"][0, 0] = 2 / unit
    parameters["output.weight"][1, 1] = 5 / unit
    losses = model.losses(parameters, MendingExample.of(graph, impaired), np.random.default_rng(0))
    # Node 0, one vector: (2, 0) from (2, 1) is 1. Node 2, two: (2, 0) is 1 from (2, 1) and 20 from (0, 4); (0, 5) is
    # 20 from (2, 1) and 1 from (0, 4). The mean squared norm is 22 / 4.
    assert losses.features.item() == pytest.approx((1 + 1 + 1) / 2 / (22 / 4), rel=1e-5)
    # ñ is softplus(0) = ln 2 for both; n is 1 and 2.
    ln2 = np.log(2)
    assert losses.counts.item() == pytest.approx(((1 - ln2) ** 2 / 2 + (2 - ln2 - 0.5)) / 2, rel=1e-5)
    assert losses.classes.item() == pytest.approx(np.log(3), rel=1e-5)


def cross_inputs(dtype: torch.dtype = torch.float32) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    parameters = random_parameters(generator(), dtype)
    noisy = torch.randn(5, SMALL.latent, generator=torch.Generator().manual_seed(0)).to(dtype)
    return {name: parameters[name] for name in DECODER}, noisy, torch.tensor([2, 0, 1, 2, 0])


def test_the_cross_loss_against_distances_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, noisy, counts = cross_inputs()
    graph, model, unit = client(9, seed=4), generator(), 0.8
    vectors = model.decode(decoder, noisy, counts)
    assert vectors.shape == (5, FEATURES)
    nearest = cdist(vectors.numpy(), graph.features / unit, "sqeuclidean").min(1) / FEATURES
    for block in (1, 20, 1 << 22):
        monkeypatch.setattr("subfl_flower.subgraphs.mending.feature_distances._BLOCK", block)
        for features in (graph.features, sp.csr_array(graph.features)):
            found = model.cross_loss(decoder, noisy, counts, ScaledFeatures.of(features, unit))
            assert found.item() == pytest.approx(nearest.sum() / 5, rel=1e-4)


def test_cross_gradients_against_finite_differences_and_sparse_against_dense() -> None:
    model, graph = generator(), client(9, seed=4)
    decoder, noisy, counts = cross_inputs(torch.float64)
    dense = ScaledFeatures.of(graph.features.astype(np.float64), 0.8)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return model.cross_loss(dict(zip(DECODER, values, strict=True)), noisy, counts, dense)

    assert torch.autograd.gradcheck(loss, tuple(decoder[name].requires_grad_() for name in DECODER))

    exact = model.cross_gradients(decoder, noisy, counts, dense)
    single = {name: value.detach().float() for name, value in decoder.items()}
    sparse = ScaledFeatures.of(sp.csr_array(graph.features), 0.8)
    found = model.cross_gradients(single, noisy.float(), counts, sparse)
    assert list(found) == list(DECODER)
    for name in DECODER:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-3, atol=1e-5)


def test_nothing_to_generate_costs_nothing() -> None:
    decoder, noisy, _ = cross_inputs()
    gradients = generator().cross_gradients(
        decoder, noisy, torch.zeros(5, dtype=torch.int64), ScaledFeatures.of(client().features, 1.0)
    )
    assert all(not gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("sparse", [False, True])
def test_a_client_without_edges_learns_that_nothing_is_missing(sparse: bool) -> None:
    graph = replace(client(8, sparse=sparse), edge_index=np.zeros((2, 0), dtype=np.int64))
    model = generator()
    _, example = parts(graph)
    losses, gradients = model.local_gradients(random_parameters(model), example, np.random.default_rng(0))
    assert losses.features == 0 and losses.counts > 0
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())


def test_without_labels_there_is_no_classifier() -> None:
    graph = replace(client(), labels=None, num_classes=0, roles=np.full(24, -1, dtype=np.int8))
    model = generator(classes=0)
    impaired, example = parts(graph)
    assert not any(name.startswith("classifier") for name in model.shapes)
    parameters = random_parameters(model)
    losses, gradients = model.local_gradients(parameters, example, np.random.default_rng(0))
    assert losses.classes == 0 and losses.total == losses.counts + losses.features
    assert gradients["encoder1.own"].abs().max() > 0
    assert model.mend(impaired.graph, parameters, np.random.default_rng(0)).labels is None


def test_initial_parameters() -> None:
    graph, model = client(), generator()
    first, second, other = (model.initial(np.random.default_rng(seed), graph.features) for seed in (0, 0, 1))
    assert {name: value.shape for name, value in first.items()} == model.shapes
    assert all(value.dtype == np.float32 for value in first.values())
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["heads.weight"], other["heads.weight"])
    mean = graph.features.mean(0)
    np.testing.assert_allclose(first["output.bias"] * feature_unit(graph.features), mean, rtol=1e-5)
    sparse = model.initial(np.random.default_rng(0), sp.csr_array(graph.features))
    np.testing.assert_allclose(sparse["output.bias"], first["output.bias"], rtol=1e-6)
    decoder = sum(first[name].size for name in DECODER)
    assert decoder == 4 * 2 * 3 + 2 * 3 + 3 * FEATURES + FEATURES


def test_the_unit_of_features() -> None:
    rows = np.array([[3.0, 0.0], [0.0, 4.0]], dtype=np.float32)
    assert feature_unit(rows) == feature_unit(sp.csr_array(rows)) == 2.5
    assert feature_unit(np.zeros((2, 2), dtype=np.float32)) == 1


def test_mended_by_hand() -> None:
    """ñ is about 2 everywhere; the first head makes (3, 0, ...) in units of 2, the second one (0, -1, ...)."""
    graph = path([[2.0] * 6, [2.0] * 6])
    model = generator(NeighbourGeneratorSettings(latent=1, hidden=2, most_neighbours=2))
    parameters = {name: torch.zeros(shape) for name, shape in model.shapes.items()}
    parameters["count.bias"] += 2.0
    parameters["heads.bias"] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    parameters["output.weight"][0, 0], parameters["output.weight"][1, 1] = 3.0, -1.0
    mended = model.mend(graph, parameters, np.random.default_rng(0))
    edges = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 4), (1, 5), (2, 0), (3, 0), (4, 1), (5, 1)]
    assert [tuple(edge) for edge in mended.edge_index.T.tolist()] == edges
    # No entry of the client is below 2, and so is none that is generated.
    first, second = [6.0, 2, 2, 2, 2, 2], [2.0] * 6
    np.testing.assert_allclose(mended.features, [[2.0] * 6, [2.0] * 6, first, second, first, second])
    # Of a client with a zero the values are raised to zero.
    unit = np.sqrt(44 / 12)
    with_zero = model.mend(path([[2.0] * 6, [2.0] * 5 + [0.0]]), parameters, np.random.default_rng(0))
    np.testing.assert_allclose(with_zero.features[2:4], [[3 * unit, 0, 0, 0, 0, 0], [0.0] * 6], rtol=1e-6)
    parameters["count.bias"] += 7.0
    assert model.mend(graph, parameters, np.random.default_rng(0)).num_nodes == 6
    parameters["count.bias"] -= 10.0
    assert model.mend(graph, parameters, np.random.default_rng(0)).num_nodes == 2


def test_what_is_sent_and_generated_depends_on_the_generator_alone() -> None:
    graph, model = client(), generator()
    parameters = random_parameters(model)
    _, example = parts(graph)
    draws = [model.outgoing(parameters, example.surroundings, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0][0], draws[1][0]) and not torch.equal(draws[0][0], draws[2][0])
    assert torch.equal(draws[0][1], draws[2][1]) and int(draws[0][1].max()) <= 2 and int(draws[0][1].sum()) > 0
    made = [model.generate(parameters, graph, np.random.default_rng(seed))[1] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    sparse = model.generate(parameters, client(sparse=True), np.random.default_rng(0))[1]
    np.testing.assert_allclose(sparse, made[0], rtol=1e-4, atol=1e-5)


def test_distances_by_hand() -> None:
    """Nodes 0 - 1 - 2 - 3; node 3 is hidden. The only head generates (0, 0, 3, 0, 0, 0) for node 2."""
    rows = np.zeros((4, FEATURES), dtype=np.float32)
    rows[0, 0], rows[1, 1], rows[2, 2], rows[3, 3] = 3, 6, 3, 4
    graph = path(rows.tolist())
    impaired = Impaired(
        visible=np.arange(3),
        graph=path(rows[:3].tolist()),
        missing=np.array([0, 0, 1]),
        indptr=np.array([0, 0, 0, 1]),
        indices=np.array([3]),
    )
    model = generator(NeighbourGeneratorSettings(latent=1, hidden=1, most_neighbours=1))
    parameters = {name: torch.zeros(shape) for name, shape in model.shapes.items()}
    parameters["output.bias"][2] = 3 / (54 / 18) ** 0.5
    found = model.distance_to_hidden(parameters, impaired, graph.features, np.random.default_rng(0))
    assert found.vectors == 1
    assert found.generated == pytest.approx(5)
    assert found.mean_feature == pytest.approx((1 + 4 + 1 + 16) ** 0.5)
    assert found.neighbour_mean == pytest.approx((36 + 16) ** 0.5)
    nothing = replace(impaired, missing=np.zeros(3, dtype=np.int64), indptr=np.zeros(4, dtype=np.int64))
    assert np.isnan(model.distance_to_hidden(parameters, nothing, graph.features, np.random.default_rng(0)).generated)


def test_training_on_one_client_comes_nearer_than_both_baselines() -> None:
    graph = client(40, seed=7)
    model = generator(NeighbourGeneratorSettings(latent=32, hidden=32, most_neighbours=3, noise=0.05))
    impaired, example = parts(graph)
    initial = model.initial(np.random.default_rng(0), graph.features)
    stacks = {name: torch.from_numpy(value)[None].clone() for name, value in initial.items()}
    state = {name: torch.zeros(1, *shape) for name, shape in adam_state_shapes(model.shapes).items()}
    totals = []
    for step in range(150):
        parameters = {name: stack[0] for name, stack in stacks.items()}
        losses, gradients = model.local_gradients(parameters, example, np.random.default_rng(step))
        totals.append(losses.total.item())
        optimizer = OptimizerSettings(name="adam", lr=0.01, weight_decay=0)
        adam_step(stacks, {name: gradient[None] for name, gradient in gradients.items()}, state, optimizer)
    parameters = {name: stack[0] for name, stack in stacks.items()}
    found = model.distance_to_hidden(parameters, impaired, graph.features, np.random.default_rng(9))
    assert totals[-1] < 0.2 * totals[0]
    assert found.generated < 0.5 * min(found.mean_feature, found.neighbour_mean)
    expected = model.counts(parameters, model.encode(parameters, example.surroundings))
    assert (expected - example.missing).abs().mean() < 0.2
