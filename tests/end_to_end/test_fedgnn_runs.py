"""Whole FedGNN runs with pseudo items, noise and graph expansion: same numbers everywhere, and what they amount to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message
from message_kinds import domain_of
from run_outcomes import Outcome, command, run_inline
from test_resume import assert_close, break_off, resumed

from subfl_flower.composition import composed_config
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.prepared.ratings import prepare_ratings
from subfl_flower.data.ratings.datasets.synthetic import SyntheticRatingsDataset
from subfl_flower.data.ratings.table import Ratings, RawRatings
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.recommendation.models.recommender_file import Recommender
from subfl_flower.server.checkpoint import Checkpoint

USERS, ITEMS, DIM, A_ROUND, PSEUDO = 24, 40, 4, 8, 10
ROUNDS, EVALUATED = 5, [2, 4, 5]
"""Rounds after which everyone is evaluated: every second, and the last."""
RUN = (
    *("method=fedgnn", f"dataset.num_users={USERS}", f"dataset.num_items={ITEMS}", "dataset.ratings_per_user=12"),
    *(f"model.dim={DIM}", f"method.users_per_round={A_ROUND}", f"method.pseudo_items={PSEUDO}"),
    *(f"federation.rounds={ROUNDS}", "method.evaluate_every=2", "privacy=laplace_linf", "method.embedding_noise=0.05"),
    *("method.max_neighbours=3", "method.expansion_every=2", "method.audit_users=5", "record.checkpoint_every=2"),
)
FIGURES = ("validation", "test")


@dataclass(frozen=True)
class Recorded:
    """A run, and every message of it with its reply."""

    outcome: Outcome
    messages: list[tuple[Message, Message]]

    def of(self, kind: str, server_round: int) -> list[tuple[Message, Message]]:
        return [
            (ask, reply)
            for ask, reply in self.messages
            if domain_of(ask) == kind and ask.content.config_records["run"]["round"] == server_round
        ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    messages: list[tuple[Message, Message]] = []
    handle = InlineGrid._handle

    def recording(self: InlineGrid, message: Message) -> Message:
        messages.append((message, handle(self, message)))
        return messages[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InlineGrid, "_handle", recording)
        outcome = run_inline(tmp_path_factory.mktemp("reference") / "run", *RUN)
    return Recorded(outcome, messages)


@pytest.fixture(scope="module")
def reference(recorded: Recorded) -> Outcome:
    return recorded.outcome


def ratings_of(*overrides: str) -> Ratings:
    config, _ = composed_config(list(overrides))
    return prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache).whole()


def recommender(run: Outcome) -> Recommender:
    """All users' of a run, whichever nodes wrote them, by user."""
    parts = [Recommender.read(path) for path in sorted((run.directory / "users").iterdir())]
    for part in parts[1:]:
        for name, values in part.shared.items():
            np.testing.assert_array_equal(values, parts[0].shared[name])
    ids = np.concatenate([part.client_ids for part in parts])
    personal = {name: np.concatenate([part.personal[name] for part in parts]) for name in parts[0].personal}
    return Recommender(parts[0].card, parts[0].shared, ids, personal).of_users(np.sort(ids))


def assert_same_numbers(found: Outcome, expected: Outcome, tolerance: float) -> None:
    """Every figure of every user in every round, and what users have at the end."""
    assert len(found.rounds) == len(expected.rounds)
    for mine, theirs in zip(found.rounds, expected.rounds, strict=True):
        assert mine["clients"].keys() == theirs["clients"].keys()
        for name in ("ids", "num_examples", "bytes_up"):
            assert mine["clients"][name] == theirs["clients"][name]
        for name in mine["clients"].keys() & set(FIGURES):
            values = [np.array(record["clients"][name], dtype=float) for record in (mine, theirs)]
            np.testing.assert_allclose(values[0], values[1], atol=tolerance, err_msg=f"{name} of {mine['round']}")
    assert found.summary["best_round"] == expected.summary["best_round"]
    mine, theirs = recommender(found), recommender(expected)
    for ours, others in ((mine.shared, theirs.shared), (mine.personal, theirs.personal)):
        assert ours.keys() == others.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], others[name], atol=tolerance, err_msg=name)
    assert_close(found.summary["privacy"], expected.summary["privacy"], tolerance)


# Wherever users are ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["2 nodes", "5 nodes", "table", "ray"])
def elsewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("elsewhere")
    places = {
        "2 nodes": ("runtime.nodes=2", "runtime.chunk=1"),
        "5 nodes": ("runtime.nodes=5", "runtime.chunk=all"),
        "table": ("runtime.nodes=1", "runtime.chunk=7", "method.download=table"),
        "ray": ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=1"),
    }
    overrides = (*RUN, *places[request.param])
    if request.param != "ray":
        return run_inline(folder / "run", *overrides)
    outcome = command(*overrides, directory=folder / "run", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_the_numbers_are_the_same_everywhere(reference: Outcome, elsewhere: Outcome) -> None:
    assert_same_numbers(elsewhere, reference, 1e-5)
    # What is found out depends on ranks, which a rounding may exchange.
    assert_close(elsewhere.summary["leakage"], reference.summary["leakage"], 0.02)
    counts = recommender(reference).personal["num_neighbours"]
    assert counts.max() == 3 and np.isin(counts, range(4)).all()  # graphs were expanded


def test_only_what_is_sent_of_the_item_table_differs_where_all_of_it_is(tmp_path: Path, reference: Outcome) -> None:
    plain = (*RUN, "federation.rounds=3")
    rows, table = (run_inline(tmp_path / how, *plain, f"method.download={how}") for how in ("rows", "table"))
    assert_same_numbers(rows, table, 1e-6)
    width = (DIM + 1) * 4
    for one, other in zip(rows.rounds, table.rounds, strict=True):
        trained = np.flatnonzero(one["clients"]["bytes_up"]).tolist()
        assert len(trained) == A_ROUND
        for row in trained:
            sent = one["clients"]["num_examples"][row] + PSEUDO
            assert other["clients"]["bytes_down"][row] - one["clients"]["bytes_down"][row] == (ITEMS - sent) * width
    asked = [[phase["action"] for phase in run.summary["exchanges"]] for run in (rows, table)]
    assert asked[1] == ["expand", "match", "neighbours"] * 2 and set(asked[0]) - set(asked[1]) == {"rows"}


def test_another_seed_gives_other_numbers(reference: Outcome, tmp_path: Path) -> None:
    other = run_inline(tmp_path / "run", *RUN, "seed=1", "federation.rounds=1", "record.checkpoint_every=0")
    clients = [run.rounds[0]["clients"] for run in (reference, other)]
    trained = [np.array(own["ids"])[np.flatnonzero(own["bytes_up"])].tolist() for own in clients]
    assert trained[0] != trained[1] and len(trained[0]) == len(trained[1]) == A_ROUND


# What travels ---------------------------------------------------------------------------------------------------------


def sizes(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Arrays as NumPy itself reads them."""
    return {name: np.load(BytesIO(array.data), allow_pickle=False) for name, array in record.items()}


def test_bytes_are_those_of_the_arrays_in_the_messages(recorded: Recorded) -> None:
    for record in recorded.outcome.rounds:
        up, down = np.zeros(USERS, np.int64), np.zeros(USERS, np.int64)
        ((ask, reply),) = recorded.of("train", record["round"])
        asked = np.array(ask.content.config_records["run"]["clients"])
        for message, counted in ((ask, down), (reply, up)):
            arrays = sizes(message.content.array_records["arrays"])
            # What all are sent alike is there once, and what each sends is there for each.
            assert {len(values) for values in arrays.values()} == ({1} if message is ask else {A_ROUND})
            counted[asked] += sum(values.nbytes // len(values) for values in arrays.values())
            lengths = message.content.config_records["ragged_lengths"]
            for name, values in sizes(message.content.array_records["ragged"]).items():
                assert sum(lengths[name]) == len(values)  # type: ignore[arg-type]
                counted[asked] += np.array(lengths[name]) * (values.nbytes // len(values))
        for ask, reply in recorded.of("evaluate", record["round"]):
            arrays = sizes(ask.content.array_records["arrays"])
            assert arrays["items"].shape == (1, ITEMS, DIM + 1)
            down += sum(values.nbytes for values in arrays.values())
            assert not reply.content.array_records["arrays"] and "ragged" not in reply.content
        ids = record["clients"]["ids"]
        assert record["clients"]["bytes_up"] == up[ids].tolist() and record["bytes_up"] == up.sum()
        assert record["clients"]["bytes_down"] == down[ids].tolist() and record["bytes_down"] == down.sum()
    summary = recorded.outcome.summary
    for direction in ("bytes_up", "bytes_down"):
        phases = sum(phase[direction] for phase in summary["exchanges"])
        assert phases > 0
        assert summary[direction] == phases + sum(record[direction] for record in recorded.outcome.rounds)


def test_everyone_is_evaluated_now_and_then_and_after_the_last_round(recorded: Recorded) -> None:
    for record in recorded.outcome.rounds:
        due = record["round"] in EVALUATED
        assert len(recorded.of("evaluate", record["round"])) == due
        assert len(record["clients"]["ids"]) == (USERS if due else A_ROUND)
        for name in ("validation", "test"):
            assert (name in record["clients"]) == due
            assert (record.get(name) is not None) == due
        assert "train_loss" not in record["clients"]  # it tells of ratings, and no noise is on it
    assert recorded.outcome.summary["best_round"] in EVALUATED


def test_the_error_of_all_users_is_that_of_what_they_have_at_the_end(reference: Outcome) -> None:
    ratings, trained = ratings_of(*RUN), recommender(reference)
    best = reference.rounds[reference.summary["best_round"] - 1]
    chosen = {role: ratings.roles == role for role in (VALIDATION, TEST)}
    predicted = np.concatenate(trained.predict(ratings, np.split(ratings.items, ratings.offsets[1:-1])))
    squares = (predicted.astype(float) - ratings.values) ** 2
    for name, role in (("validation", VALIDATION), ("test", TEST)):
        assert best[name] == pytest.approx(math.sqrt(squares[chosen[role]].mean()), abs=1e-5)
        counts = np.bincount(ratings.users()[chosen[role]], minlength=USERS)
        assert best["clients"][f"{name}_examples"] == counts.tolist()
        for user in range(USERS):
            own = squares[chosen[role] & (ratings.users() == user)]
            found = best["clients"][name][user]
            assert (found is None) == (not len(own))
            assert found is None or found == pytest.approx(math.sqrt(own.mean()), abs=1e-5)
    assert reference.summary["test_at_best_validation"] == best["test"]
    assert best["validation"] == min(reference.rounds[r - 1]["validation"] for r in EVALUATED)


def test_the_summary_says_what_is_guaranteed_and_what_was_found_out(recorded: Recorded) -> None:
    summary = recorded.outcome.summary
    trained = [
        user
        for r in range(1, ROUNDS + 1)
        for ask, _ in recorded.of("train", r)
        for user in ask.content.config_records["run"]["clients"]
    ]  # type: ignore[union-attr]
    uploads = np.bincount(trained, minlength=USERS)
    assert summary["uploads_per_user"] == uploads.max() > 1
    privacy = summary["privacy"]
    # The radius is a multiple of the grid's spacing, of which the noise has 2^18 steps or more.
    assert 1 - 2**-18 < privacy["per_coordinate_epsilon"] <= 1
    assert privacy["num_uploads"] == uploads.max()
    assert (privacy["clip"], privacy["noise_scale"], privacy["covers"]) == (0.1, 0.2, "values")
    values = 0
    for server_round in range(1, ROUNDS + 1):
        ((_, reply),) = recorded.of("train", server_round)
        single = sum(v.size // len(v) for v in sizes(reply.content.array_records["arrays"]).values())
        longest = max(reply.content.config_records["ragged_lengths"]["item_ids"])  # type: ignore[type-var]
        values = max(values, single + longest * (DIM + 1))
    assert privacy["num_coordinates"] == values
    assert privacy["whole_upload_epsilon"] == pytest.approx(values, rel=1e-5)
    assert 0 < privacy["user_level_epsilon"] <= values * uploads.max()
    leakage = summary["leakage"]
    assert leakage["users"] == 5 and 1 <= leakage["uploads"] <= ROUNDS
    assert set(leakage["attacks"]) == {"gradient_norm", "intersection", "persistence"}
    # The same rows travel in every round: counting them tells real items from pseudo ones no better than chance.
    assert leakage["attacks"]["intersection"]["auc_seen"] == 0.5 < leakage["presence_auc"] < 1
    ratings = ratings_of(*RUN)
    own = ratings.counts(TRAIN)[list(dict.fromkeys(trained))[:5]]
    assert leakage["share_real"] == pytest.approx((own / (own + PSEUDO)).mean())


# After a crash --------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_broken_off(reference: Outcome, tmp_path: Path) -> None:
    """Resume a run with a node for each user, most of which are not asked in the round of a checkpoint."""
    folder = tmp_path / "run"
    break_off(folder, "round 5", *RUN, "runtime.nodes=24", "runtime.chunk=1")
    checkpoint = Checkpoint.read(folder / "checkpoint")
    assert checkpoint.server_round == 4 and checkpoint.strategy["uploads"].sum() == 4 * A_ROUND
    found = resumed(folder)
    assert_same_numbers(found, reference, 1e-5)
    mine, theirs = (Checkpoint.read(run.directory / "checkpoint") for run in (found, reference))
    assert mine.server_round == theirs.server_round == ROUNDS
    assert mine.strategy.keys() == theirs.strategy.keys()
    moments = {name: values for name, values in mine.strategy.items() if name.startswith("server/adam.")}
    assert sum(values.size for name, values in moments.items() if "items" in name) >= 2 * ITEMS * (DIM + 1)
    assert all(values.any() for name, values in moments.items() if not name.endswith("bias"))
    for name, values in mine.strategy.items():
        np.testing.assert_allclose(values, theirs.strategy[name], atol=1e-5, err_msg=name)
    assert mine.strategy["uploads"].sum() == ROUNDS * A_ROUND


# A user without anything to train on ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [("method.download=rows",), ("method.download=table", "method.pseudo_items=0")], ids=str
)
def test_a_user_without_training_ratings_takes_part_harmlessly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Everything that users 0 and 1 rated tests, as a source's own split may have it."""
    read = SyntheticRatingsDataset.read

    def split(self: SyntheticRatingsDataset, root: Path) -> RawRatings:
        raw = read(self, root)
        tests = (raw.users < 2) | (np.arange(len(raw.users)) % 4 == 0)
        return replace(raw, roles=np.where(tests, TEST, TRAIN).astype(np.int8))

    monkeypatch.setattr(SyntheticRatingsDataset, "read", split)
    monkeypatch.setenv("SUBFL_CACHE", str(tmp_path / "cache"))
    overrides = (
        *("method=fedgnn", "dataset.num_users=12", "dataset.num_items=12", "dataset.ratings_per_user=6"),
        *("dataset.split=given", "dataset.validation_fraction=0.2", "model.dim=3", "method.users_per_round=12"),
        *("method.pseudo_items=3", "method.max_neighbours=2", "method.evaluate_every=1", "method.audit_users=12"),
        *("privacy=laplace_linf", "federation.rounds=2"),
    )
    ratings = ratings_of(*overrides)
    idle = np.flatnonzero(ratings.counts(TRAIN) == 0)
    assert idle.tolist() == [0, 1]
    run = run_inline(tmp_path / "run", *overrides, *more)
    assert run.summary["status"] == "completed"
    for record in run.rounds:
        assert record["failures"] == {} and record["clients"]["ids"] == list(range(12))
        for user in idle:
            assert record["clients"]["num_examples"][user] == 0
            assert record["clients"]["test"][user] is not None and record["clients"]["validation"][user] is None
    trained = recommender(run)
    for values in (*trained.shared.values(), *trained.personal.values()):
        assert np.isfinite(values).all()
    assert not trained.personal["num_neighbours"][idle].any() and trained.personal["num_neighbours"].any()
