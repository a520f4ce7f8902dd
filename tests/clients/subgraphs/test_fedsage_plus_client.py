"""FedSage+'s clients, asked as the server asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clients import CLASSES, FEATURES, answered, cohort_of, family_of, tiny_client
from tiny_clients import trained as round_of

from subfl_flower.clients.subgraphs.fedsage_plus import FedSagePlusClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph, Graph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings, OptimizerSettings
from subfl_flower.node.state import MappedStore, StateStore
from subfl_flower.seeding import client_generator
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.mending.hidden_neighbours import hide_neighbours
from subfl_flower.subgraphs.mending.mending_example import MendingExample, ScaledFeatures
from subfl_flower.subgraphs.mending.neighbour_generator import NeighbourGenerator, NeighbourGeneratorSettings
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question, Result

GENERATOR = NeighbourGeneratorSettings(latent=6, hidden=4, most_neighbours=3)
GRAPHS = [tiny_client(c, size, edge_probability=0.35) for c, size in enumerate((16, 20, 12))]
IDS = (0, 1, 2)
Advice = Mapping[int, Stack]


def client(
    store: StateStore | None = None,
    *,
    model: str = "sage",
    cohort: Cohort | None = None,
    family: type[SubgraphClient] = FedSagePlusClient,
    **knobs: Any,
) -> Any:
    if family is FedSagePlusClient:
        knobs = {"generator": GENERATOR, "generator_epochs": 4, **knobs}
    network = ModelSettings(name=model, hidden=5, dropout=0.0)  # type: ignore[arg-type]
    optimizer = OptimizerSettings(name="adam")
    cohort = cohort or cohort_of(*GRAPHS)
    return family_of(family, cohort, knobs, model=network, optimizer=optimizer, seed=7, store=store)


def improved(asked: FedSagePlusClient, advice: Advice | None = None, last: bool = False) -> dict[int, Stack]:
    received = {c: (advice or {}).get(c, {}) for c in IDS}
    return answered(asked, Question("generator", received, about={"last": int(last)}))


def judged(asked: FedSagePlusClient, generators: Mapping[int, Stack]) -> Advice:
    """The mean of what the two others say of each one's decoder."""
    sent = {j: {f"{i}/{n}": v for i in IDS if i != j for n, v in generators[i].items()} for j in IDS}
    found = answered(asked, Question("gradients", sent))
    names = NeighbourGenerator.decoder_names
    assert [set(found[j]) for j in IDS] == [{f"{i}/{name}" for i in IDS if i != j for name in names} for j in IDS]
    return {i: {name: np.mean([found[j][f"{i}/{name}"] for j in IDS if j != i], axis=0) for name in names} for i in IDS}


def set_up(ask: Callable[[], FedSagePlusClient], exchanges: int = 2) -> dict[int, Stack]:
    advice: Advice = {}
    for _ in range(exchanges):
        generators = improved(ask(), advice)
        advice = judged(ask(), generators)
    return improved(ask(), advice, last=True)


def trained(asked: SubgraphClient) -> Result:
    rng, shapes = np.random.default_rng(0), asked.model.shapes
    sent = {name: rng.standard_normal((3, *shape)).astype(np.float32) / 3 for name, shape in shapes.items()}
    result = round_of(asked, sent, epochs=2)
    assert result.failures == {}
    return result


def generated(asked: FedSagePlusClient, graph: ClientGraph) -> ClientGraph:
    assert asked.mended(graph.client_id)
    return asked.with_generated(graph, asked.store.kept.get(graph.client_id, "generator"))


def test_a_generator_is_adams_way_along_the_clients_own_loss_and_what_others_said() -> None:
    """A client's generator equals one trained by PyTorch's optimiser and losses, for the client in the middle."""
    graph, ours = GRAPHS[1], NeighbourGenerator(GENERATOR, FEATURES, CLASSES)

    def example(step: int) -> MendingExample:
        return MendingExample.of(graph, hide_neighbours(graph, 0.5, client_generator(7, 1, step, "hidden nodes")))

    initial = ours.initial(client_generator(7, 1, 0, "initial generator"), graph.features)
    parameters = {name: torch.from_numpy(value).requires_grad_() for name, value in initial.items()}
    adam = torch.optim.Adam(parameters.values(), lr=0.02, weight_decay=0.1)

    asked = client(generator_lr=0.02, generator_weight_decay=0.1, cross_weight=0.5)
    first = improved(asked)[1]
    rng = np.random.default_rng(3)
    advice = {1: {name: rng.standard_normal(first[name].shape).astype(np.float32) for name in ours.decoder_names}}
    second = improved(asked, advice)[1]
    for step in range(5):
        if step == 4:
            for name in ours.decoder_names:
                np.testing.assert_allclose(first[name], parameters[name].detach().numpy(), atol=1e-5, err_msg=name)
        adam.zero_grad()
        ours.losses(parameters, example(step), client_generator(7, 1, step, "generator noise")).total.backward()
        if step == 4:
            for name, values in advice[1].items():
                parameters[name].grad += 0.5 * torch.from_numpy(values)
        adam.step()
    for name in ours.decoder_names:
        np.testing.assert_allclose(second[name], parameters[name].detach().numpy(), atol=1e-5, err_msg=name)
        assert np.abs(second[name] - first[name]).max() > 1e-3

    _, counts = ours.outgoing(parameters, example(5).surroundings, np.random.default_rng())
    assert second["noisy"].shape == (10, 6) and second["counts"].tolist() == counts.tolist()


@pytest.mark.parametrize("deployed", [True, False], ids=["deployed", "simulated"])
def test_attack_the_noise_on_embeddings_is_taken_off_by_the_runs_seed(deployed: bool) -> None:
    """Anybody who knows the seed draws a simulation's noise again; on a deployed node that gives nothing.

    Two runs of the same seed differ by their noise alone, of deviation 1 each.
    """
    whole = None if deployed else lambda: (None, None)
    sent = [improved(client(cohort=replace(cohort_of(*GRAPHS), whole=whole))) for _ in range(2)]
    for c in IDS:
        one, other = (np.asarray(each[c]["noisy"]) for each in sent)
        drawn = client_generator(7, c, 4, "outgoing embeddings").standard_normal(one.shape, dtype=np.float32)
        without = [each - GENERATOR.noise * drawn for each in (one, other)]
        if deployed:
            assert np.std(one - other) > GENERATOR.noise and np.std(without[0] - without[1]) > GENERATOR.noise
        else:
            np.testing.assert_array_equal(one, other)
    if not deployed:  # the attack itself: embeddings without noise, as the client's own decoder has them
        asked = client(
            cohort=replace(cohort_of(*GRAPHS), whole=whole), generator=GENERATOR.model_copy(update={"noise": 0})
        )
        plain = improved(asked)
        drawn = client_generator(7, 0, 4, "outgoing embeddings").standard_normal(plain[0]["noisy"].shape, np.float32)
        assert np.abs(sent[0][0]["noisy"] - GENERATOR.noise * drawn).std() < np.abs(sent[0][0]["noisy"]).std()


def test_what_is_said_of_another_is_the_gradient_of_how_far_it_is_from_ones_own_nodes() -> None:
    asked, ours = client(), NeighbourGenerator(GENERATOR, FEATURES, CLASSES)
    generators = improved(asked)
    for stack in generators.values():
        stack["counts"][:] = 2
    advice = judged(asked, generators)
    for i in IDS:
        decoder = {name: torch.from_numpy(generators[i][name]) for name in ours.decoder_names}
        noisy = torch.from_numpy(generators[i]["noisy"])
        counts = torch.from_numpy(generators[i]["counts"]).long()
        root_mean_square = float(np.sqrt(np.mean(GRAPHS[i].features.astype(np.float64) ** 2)))
        assert generators[i]["unit"] == pytest.approx(root_mean_square, rel=1e-5)
        said = [
            ours.cross_gradients(decoder, noisy, counts, ScaledFeatures.of(GRAPHS[j].features, root_mean_square))
            for j in IDS
            if j != i
        ]
        for name, values in advice[i].items():
            np.testing.assert_allclose(values, (said[0][name] + said[1][name]) / 2, atol=1e-5)
            assert np.abs(values).max() > 0


@pytest.mark.parametrize("model", ["sage", "gcn"])
def test_clients_train_on_their_nodes_and_generated_ones_and_are_measured_on_their_own(model: str) -> None:
    asked = client(model=model)
    figures = {c: stack["figures"] for c, stack in set_up(lambda: asked).items()}
    for position, graph in enumerate(GRAPHS):
        mended = generated(asked, graph)
        added = mended.num_nodes - graph.num_nodes
        assert figures[position][4] == added
        np.testing.assert_array_equal(mended.features[: graph.num_nodes], graph.features)
        assert (mended.roles[graph.num_nodes :] == -1).all() and (mended.roles >= 0).sum() == graph.num_nodes
        local = asked.local_graph(position)
        assert (local.num_own, local.num_nodes) == (graph.num_nodes, mended.num_nodes)
    assert sum(stack[4] for stack in figures.values()) > 0

    everything = cohort_of(*(generated(asked, graph) for graph in GRAPHS))
    plain = client(model=model, cohort=everything, family=SubgraphClient)
    found, expected = trained(asked), trained(plain)
    for name, values in found.arrays.items():
        np.testing.assert_allclose(values, expected.arrays[name], atol=1e-5)
    for name in ("validation", "test", "train_loss", "num_examples"):
        np.testing.assert_allclose(found.metrics[name], expected.metrics[name], atol=1e-6, err_msg=name)


def test_every_message_may_find_another_process(tmp_path: Path) -> None:
    simulated = replace(cohort_of(*GRAPHS), whole=lambda: (GRAPHS[0], GRAPHS[0].roles))  # noise follows from the seed
    one = client(cohort=simulated)
    kept = set_up(lambda: one)
    anew = set_up(lambda: client(MappedStore(tmp_path), cohort=simulated))
    for c in IDS:
        np.testing.assert_array_equal(anew[c]["figures"], kept[c]["figures"])
    found, expected = trained(client(MappedStore(tmp_path), cohort=simulated)).arrays, trained(one).arrays
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def test_who_was_not_there_trains_on_what_it_holds() -> None:
    asked = client()
    improved(asked)
    assert not asked.mended(0)
    found, expected = trained(asked).arrays, trained(client(family=SubgraphClient)).arrays
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def test_a_simulation_measures_by_the_true_neighbours_elsewhere() -> None:
    rng = np.random.default_rng(5)
    everything = rng.standard_normal((60, FEATURES)).astype(np.float32)
    ends = np.array([[0, 0, 0, 0, 3], [50, 51, 52, 53, 59]])
    whole = Graph(everything, np.zeros((2, 0), np.int64), None, 0)
    mended = replace(GRAPHS[0], cross_edges=ends)
    cohort = replace(cohort_of(mended, *GRAPHS[1:]), whole=lambda: (whole, np.zeros(60, np.int8)))
    asked = client(cohort=cohort)
    found = set_up(lambda: asked, exchanges=0)
    assert [found[c]["figures"][0] for c in IDS] == [3 + 1, 0, 0], "of node 0 at most three neighbours are generated"
    vectors, generated, of_mean, of_neighbours, _ = found[0]["figures"]
    own = GRAPHS[0].features

    def to_nearest(of_node_0: np.ndarray, of_node_3: np.ndarray) -> float:
        near, far = (
            np.linalg.norm(everything[at] - of, axis=1).min()
            for at, of in ((slice(50, 54), of_node_0), (slice(59, 60), of_node_3))
        )
        return float((3 * near + far) / 4)

    assert of_mean == pytest.approx(to_nearest(own.mean(0), own.mean(0)), rel=1e-5)
    row, column = GRAPHS[0].edge_index
    assert of_neighbours == pytest.approx(to_nearest(*(own[column[row == v]].mean(0) for v in (0, 3))), rel=1e-5)
    assert vectors == 4 and np.isfinite(generated) and abs(generated - of_mean) > 1e-3


def test_without_the_whole_graph_nothing_is_measured() -> None:
    asked = client()
    assert all(np.isnan(stack["figures"][1:4]).all() for stack in set_up(lambda: asked, exchanges=0).values())


def test_other_phases_are_refused() -> None:
    with pytest.raises(SubflError, match=r"FedSagePlusClient has no answer to query\.structure"):
        client().answer(Question("structure", {0: {}}))
