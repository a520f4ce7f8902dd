"""Whole runs of rankings: the same numbers wherever users are and after a crash, and what they amount to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from message_kinds import domain_of
from run_outcomes import Outcome, command, partition, run_inline
from test_fedgnn_deployed import MachinesGrid, deployed
from test_resume import break_off, resumed

from subfl_flower.composition import composed_config
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.prepared.ratings import prepare_ratings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.tasks.ranking_metrics import user_figures
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.seeding import client_generator
from subfl_flower.server.checkpoint import Checkpoint
from subfl_flower.tasks.choices import Ranking
from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.payload import unpack_choice

USERS, ITEMS, DIM, A_ROUND, ROUNDS = 24, 40, 4, 8, 6
DATA = (
    *("dataset=synthetic_ratings", f"dataset.num_users={USERS}", f"dataset.num_items={ITEMS}"),
    *("dataset.ratings_per_user=12", "task=ranking", "task.negatives=10", "task.cutoffs=[3,5]", f"model.dim={DIM}"),
)
COMMON = (
    *(*DATA, f"method.users_per_round={A_ROUND}", "method.evaluate_every=2", f"federation.rounds={ROUNDS}"),
    "record.checkpoint_every=2",
)
CLUSTERS = ("method.clusters=2", "method.cluster_start=2", "method.cluster_every=2", "method.cluster_pull=0.1")
METHODS = {
    "fedavg": ("method=fedavg", *COMMON),
    "perfedrec": ("method=perfedrec", *COMMON, *CLUSTERS),
    "fedgnn": (
        *("method=fedgnn", *COMMON, "method.pseudo_items=5", "model.layers=2"),
        *("method.max_neighbours=2", "method.expansion_every=2", "method.embedding_noise=0.05"),
    ),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """A method's run on one node, made once."""
    known: dict[str, Outcome] = {}

    def run(method: str) -> Outcome:
        if method not in known:
            known[method] = run_inline(tmp_path_factory.mktemp(method) / "run", *METHODS[method])
        return known[method]

    return run


def ratings_of(*overrides: str) -> Ratings:
    config, _ = composed_config(list(overrides))
    return prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache).whole()


def assert_same(found: Outcome, expected: Outcome) -> None:
    """Every figure of every round, who took part and what travelled, clusters, and the server's memory at the end."""
    assert len(found.rounds) == len(expected.rounds)
    for mine, theirs in zip(found.rounds, expected.rounds, strict=True):
        assert mine["failures"] == theirs["failures"] == {}
        assert mine["clients"].keys() == theirs["clients"].keys()
        for name, values in theirs["clients"].items():
            own = np.array(mine["clients"][name], dtype=float)
            np.testing.assert_allclose(own, np.array(values, dtype=float), atol=1e-5, err_msg=name)
        assert mine.get("figures") == pytest.approx(theirs.get("figures"), abs=1e-9)
        assert (mine["bytes_up"], mine["bytes_down"]) == (theirs["bytes_up"], theirs["bytes_down"])
    clusters = [RunDirectory(run.directory).clusters() for run in (found, expected)]
    assert clusters[0].keys() == clusters[1].keys()
    for server_round, clustering in clusters[0].items():
        other = clusters[1][server_round]
        np.testing.assert_array_equal(clustering.labels, other.labels)
        np.testing.assert_allclose(clustering.points, other.points, atol=1e-4)
    states = [Checkpoint.read(run.directory / "checkpoint").strategy for run in (found, expected)]
    assert states[0].keys() == states[1].keys()
    for name, values in states[1].items():
        np.testing.assert_allclose(states[0][name], values, atol=2e-5, err_msg=name)
    assert found.summary["best_round"] == expected.summary["best_round"]
    assert found.summary.get("clusters") == expected.summary.get("clusters")


# Wherever users are ---------------------------------------------------------------------------------------------------

PLACES = {
    "2 nodes": ("runtime.nodes=2", "runtime.chunk=1"),
    "3 nodes": ("runtime.nodes=3", "runtime.chunk=all"),
    "chunks": ("runtime.nodes=1", "runtime.chunk=7"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", PLACES)
def test_nodes_and_chunks_change_no_number(
    reference: Callable[[str], Outcome], inline_run: Callable[..., Outcome], method: str, place: str
) -> None:
    assert_same(inline_run(*METHODS[method], *PLACES[place]), reference(method))


@pytest.mark.slow
def test_ray_changes_no_number(reference: Callable[[str], Outcome], tmp_path: Path) -> None:
    overrides = (*METHODS["perfedrec"], "runtime=ray", "runtime.nodes=2", "runtime.total_cpus=1")
    outcome = command(*overrides, directory=tmp_path / "run", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert_same(outcome, reference("perfedrec"))


@pytest.mark.parametrize("method", ["central", "popularity"])
def test_what_is_trained_in_one_place_is_the_same_on_every_node(
    inline_run: Callable[..., Outcome], method: str
) -> None:
    common = (f"method={method}", *DATA, "federation.rounds=3", "optimizer.lr=0.1")
    one, three = (inline_run(*common, f"runtime.nodes={nodes}") for nodes in (1, 3))
    for record, other in zip(one.rounds, three.rounds, strict=True):
        assert record["figures"] == pytest.approx(other["figures"], abs=1e-9)
        assert record["bytes_up"] == record["bytes_down"] == other["bytes_up"] == 0
    losses = [record["train_loss"] for record in one.rounds if "train_loss" in record]
    assert len(losses) == (3 if method == "central" else 0)
    assert losses == [] or losses[2] < losses[0] - 0.01
    figures = {tuple(record["figures"].values()) for record in one.rounds}
    assert len(figures) == (3 if method == "central" else 1)


# After a crash --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["round 5", "checkpoint of round 4"])
def test_a_run_goes_on_where_it_was_broken_off(
    reference: Callable[[str], Outcome], tmp_path: Path, moment: str
) -> None:
    """Right after the second clustering, or before it, where a node for each user has most of them left out."""
    folder = tmp_path / "run"
    break_off(folder, moment, *METHODS["perfedrec"], "runtime.nodes=24")
    checkpoint = Checkpoint.read(folder / "checkpoint")
    assert checkpoint.server_round == (4 if moment == "round 5" else 2)
    assert (checkpoint.strategy["UserClusters/labels"] >= 0).any() and "UserClusters/centroids" in checkpoint.strategy
    assert_same(resumed(folder), reference("perfedrec"))


# What it amounts to ---------------------------------------------------------------------------------------------------


def test_a_summary_holds_figures_popularity_and_clusters(
    reference: Callable[[str], Outcome], inline_run: Callable[..., Outcome]
) -> None:
    """The summary's popularity figures equal those of popularity as a method."""
    run = reference("perfedrec")
    best = run.rounds[run.summary["best_round"] - 1]
    assert run.summary["figures"] == best["figures"]
    assert run.summary["test_at_best_validation"] == best["test"] == best["figures"]["test.hr@3"]
    for which in ("", "global.", "cluster.", "own."):
        for measure in ("hr@3", "ndcg@3", "full_hr@3", "full_ndcg@3"):
            assert 0 <= run.summary["figures"][f"test.{which}{measure}"] <= 1
    popular = inline_run("method=popularity", *DATA, "federation.rounds=1")
    (record,) = popular.rounds
    expected = {**record["figures"], "validation": record["validation"], "test": record["test"]}
    for method in METHODS:
        assert reference(method).summary["popularity"] == pytest.approx(expected)
        assert ("clusters" in reference(method).summary) == (method == "perfedrec")
    ratings, task = ratings_of(*METHODS["fedavg"]), composed_config(list(METHODS["fedavg"]))[0].task
    assert isinstance(task, Ranking)
    counts = np.bincount(ratings.items[ratings.roles == TRAIN], minlength=ITEMS)
    by_hand = user_figures(np.tile(counts.astype(float), (USERS, 1)), ratings, task)
    assert expected["test.full_ndcg@5"] == pytest.approx(by_hand["test.full_ndcg@5"].mean())


def test_clusters_are_recorded_as_they_were(reference: Callable[[str], Outcome]) -> None:
    run = reference("perfedrec")
    found = RunDirectory(run.directory).clusters()
    assert sorted(found) == [2, 4, 6]
    trained = [
        {c for c, up in zip(r["clients"]["ids"], r["clients"]["bytes_up"], strict=True) if up} for r in run.rounds
    ]
    for server_round, clustering in found.items():
        so_far = set().union(*trained[: server_round - 1])
        assert {int(user) for user in np.flatnonzero(clustering.labels >= 0)} == so_far
        assert np.isfinite(clustering.points).all(1).tolist() == (clustering.labels >= 0).tolist()
    sizes = run.summary["clusters"]
    assert sum(sizes["sizes"]) + sizes["without"] == USERS
    assert sizes["sizes"] == np.bincount(found[6].labels[found[6].labels >= 0], minlength=2).tolist()
    asked = [(phase["action"], phase["bytes_up"], phase["bytes_down"]) for phase in run.summary["exchanges"]]
    counts = [len(set().union(*trained[: r - 1])) for r in (2, 4, 6)]
    assert asked == [("embedding", 4 * DIM * count, 0) for count in counts]


def test_bytes_are_those_of_a_model_to_train_and_of_two_to_be_measured(reference: Callable[[str], Outcome]) -> None:
    """Tables are of full precision numbers, none of them 0, so that they travel as they are."""
    table = 4 * ITEMS * DIM
    labels = np.full(USERS, -1)
    run = reference("perfedrec")
    clusters = RunDirectory(run.directory).clusters()
    for record in run.rounds:
        labels = clusters[record["round"]].labels if record["round"] in clusters else labels
        evaluated = record["round"] % 2 == 0
        for client, up, down in zip(*(record["clients"][n] for n in ("ids", "bytes_up", "bytes_down")), strict=True):
            models = (up > 0) + evaluated * (1 + (labels[client] >= 0))
            assert down == models * table
        trained = [up for up in record["clients"]["bytes_up"] if up]
        assert len(trained) == A_ROUND and all(up % (4 + 4 * DIM) == 0 for up in trained)


@pytest.mark.parametrize("method", ["fedavg", "perfedrec"])
def test_what_hides_users_is_asked_for_by_the_configuration_alone(
    reference: Callable[[str], Outcome], inline_run: Callable[..., Outcome], method: str
) -> None:
    hidden = inline_run(*METHODS[method], "privacy=laplace_linf", "method.pseudo_items=20", "federation.rounds=2")
    plain = reference(method)
    num_examples = ratings_of(*METHODS[method]).counts(TRAIN)
    assert hidden.summary["status"] == "completed"
    for record, bare in zip(hidden.rounds, plain.rounds, strict=False):
        assert "train_loss" in bare["clients"] and "train_loss" not in record["clients"]
        for client, up in zip(record["clients"]["ids"], record["clients"]["bytes_up"], strict=True):
            rows, rest = divmod(up, 4 + 4 * DIM)
            assert rest == 0
            if up:  # its own, 20 others, and sampled negatives that are not among these
                assert num_examples[client] + min(20, ITEMS - num_examples[client]) <= rows <= ITEMS
    privacy = hidden.summary["privacy"]
    assert (privacy["mechanism"], privacy["clip"], privacy["noise_scale"]) == ("laplace_linf", 0.1, 0.2)
    # The radius is a multiple of the grid's spacing, of which the noise has 2^18 steps or more.
    assert 1 - 2**-18 < privacy["per_coordinate_epsilon"] <= 1 and privacy["covers"] == "values"
    assert privacy["num_coordinates"] % DIM == 0 and privacy["num_uploads"] == hidden.summary["uploads_per_user"]
    assert "privacy" not in plain.summary
    table = [
        Checkpoint.read(run.directory / "checkpoint").strategy["server/parameters.items"] for run in (hidden, plain)
    ]
    assert np.abs(table[0] - table[1]).max() > 0.05


def test_another_split_is_refused_in_one_sentence(inline_run: Callable[..., Outcome]) -> None:
    with pytest.raises(SubflError, match=r"task=ranking needs dataset\.split=leave_one_out") as error:
        inline_run(*METHODS["perfedrec"], "dataset.split=random")
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_lists_of_items_with_a_split_of_several_are_ranked(inline_run: Callable[..., Outcome], tmp_path: Path) -> None:
    """Popularity of training items, by hand: recall among all items that a user does not train on."""
    rng, train, test = np.random.default_rng(2), {}, {}
    for user in range(12):
        items = rng.permutation(30)[: rng.integers(4, 12)].tolist()
        train[user], test[user] = items[2:], items[:2]
    for name, lists in (("train", train), ("test", test)):
        lines = [" ".join(map(str, [user, *items])) for user, items in lists.items()]
        (tmp_path / f"{name}.txt").write_text("\n".join([*lines, ""]))
    data = ("dataset=custom_ratings", f"dataset.path={tmp_path}", "dataset.validation_fraction=0", "task=ranking")
    run = inline_run("method=popularity", *data, "task.negatives=10", "task.cutoffs=[5]", "federation.rounds=1")
    known = sorted({item for items in [*train.values(), *test.values()] for item in items})
    counts = {item: sum(item in items for items in train.values()) for item in known}
    recall = []
    for user in range(12):
        others = [item for item in known if item not in train[user]]
        hits = []
        for item in test[user]:
            above = sum(counts[other] > counts[item] for other in others)
            tied = sum(counts[other] == counts[item] for other in others) - 1
            hits.append(min(1.0, max(0.0, (5 - above) / (tied + 1))))
        recall.append(np.mean(hits))
    assert run.rounds[-1]["figures"]["test.full_hr@5"] == pytest.approx(np.mean(recall))


# On deployed nodes ----------------------------------------------------------------------------------------------------

THREE = (
    *("dataset=synthetic_ratings", "dataset.num_users=3", "dataset.num_items=16", "dataset.ratings_per_user=8"),
    *("task=ranking", "task.negatives=4", "task.cutoffs=[2]"),
)
ALONE = (
    *("method=perfedrec", *THREE, "model.dim=3", "method.users_per_round=2", "method.evaluate_every=1"),
    *("method.clusters=2", "method.cluster_start=2", "method.cluster_every=1", "method.cluster_pull=0.2"),
    *("method.user_steps=3", "federation.rounds=4"),
)


@pytest.fixture
def machines(tmp_path: Path) -> Callable[[], MachinesGrid]:
    """Deployed nodes, one for each of three users and their folders; new ones at each call."""
    number = itertools.count()

    def made() -> MachinesGrid:
        out = tmp_path / f"users-{next(number)}"
        assert partition(["method=perfedrec", *THREE, f"out={out}"]) == 0
        return MachinesGrid(sorted(out.glob("client-*")), None)

    return made


def test_machines_of_their_own_give_the_numbers_of_a_simulation(
    machines: Callable[[], MachinesGrid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal numbers, if users draw as in a simulation; otherwise private draws come from their secrets."""

    def drawn(self: UserCohort, seed: int, client_id: int, server_round: int, purpose: str) -> np.random.Generator:
        return client_generator(seed, client_id, server_round, purpose)

    def lasting(self: UserCohort, seed: int, client_id: int, purpose: str) -> np.random.Generator:
        return client_generator(seed, client_id, 0, purpose)

    monkeypatch.setattr(UserCohort, "noise_generator", drawn)
    monkeypatch.setattr(UserCohort, "lasting_generator", lasting)
    grid = machines()
    found, expected = deployed(grid, tmp_path / "deployed", *ALONE), run_inline(tmp_path / "simulation", *ALONE)
    assert len(found.rounds) == 4
    for mine, theirs in zip(found.rounds, expected.rounds, strict=True):
        assert (mine["failures"], theirs["failures"]) == ({}, {})
        assert mine["clients"]["bytes_down"] == theirs["clients"]["bytes_down"]
        assert mine["clients"]["bytes_up"] == theirs["clients"]["bytes_up"]
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)
        assert mine["figures"] == pytest.approx(theirs["figures"], abs=1e-9)
    assert found.summary["clusters"] == expected.summary["clusters"] and found.summary["clusters"]["without"] < 3
    for run in (found, expected):
        assert [phase["action"] for phase in run.summary["exchanges"]] == ["embedding"] * 3
    labels = [RunDirectory(run.directory).clusters() for run in (found, expected)]
    for server_round, clustering in labels[0].items():
        assert clustering.labels.tolist() == labels[1][server_round].labels.tolist()
    # No machine is sent more than it needs: one model to train, and two to be measured by.
    for ask, reply in zip(grid.asked, grid.replies, strict=True):
        kind = domain_of(ask)
        if kind in ("train", "evaluate"):
            sent = unpack_choice(ask.content)
            assert sent.num_clients == 1 and sent.num_rows <= (1 if kind == "train" else 2)
        if kind == "query.embedding":
            arrays = [read_array(array) for array in reply.content.array_records["arrays"].values()]
            assert [values.shape for values in arrays] in ([], [(3,)])


def test_on_a_machine_of_its_own_nobody_can_draw_again_what_a_user_draws(
    machines: Callable[[], MachinesGrid], tmp_path: Path
) -> None:
    """The seed is the server's; users' negative items come from their secrets, and differ every time."""
    uploads = []
    for number in range(2):
        grid = machines()
        run = deployed(grid, tmp_path / f"run-{number}", *ALONE, "method.users_per_round=3", "federation.rounds=2")
        assert run.summary["status"] == "completed"
        assert all(record["failures"] == {} for record in run.rounds)
        assert run.summary["clusters"] == {"sizes": run.summary["clusters"]["sizes"], "without": 0}
        for record in run.rounds:
            values: dict[str, Any] = record["figures"]
            assert len(values) == 2 * (4 + 3 * 4) and all(0 <= value <= 1 for value in values.values())
        uploads.append(grid.uploads())
    assert uploads[0].keys() == uploads[1].keys() and len(uploads[0]) == 6
    items = [[tuple(upload[key]["item_ids"].tolist()) for key in sorted(upload)] for upload in uploads]
    assert any(one != other for one, other in zip(*items, strict=True))
    for (server_round, node), upload in uploads[0].items():
        assert server_round in (1, 2) and upload["item_rows"].shape == (len(upload["item_ids"]), 3), node
