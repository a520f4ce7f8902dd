from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_outcomes import recommend as main

from subfl_flower.commands.recommendations import users
from subfl_flower.commands.recommendations.best_items import _best, recommended
from subfl_flower.commands.recommendations.users import UserToRecommend, open_user
from subfl_flower.composition import composed_config
from subfl_flower.data.folders.user_folder import write_user_folder
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.prepared.ratings import PreparedRatings, prepare_ratings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.models.recommender_file import Recommender, RecommenderCard
from subfl_flower.runs.directory import RunDirectory

USERS, ITEMS = 5, 12
IDS = [str(10 * item) for item in range(ITEMS)]
TITLES = [f"Film {letter}, part [b]" for letter in "abcdefghijkl"]
TRAINED = dict(run="run-0", method="fedgnn", dataset="custom_ratings", round=7)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six to ten ratings of each of five users; every item has some."""
    rng = np.random.default_rng(5)
    lines = ["user,item,rating,title"]
    for user in range(USERS):
        chosen = {user, user + 5, 10 + user % 2, *rng.choice(ITEMS, size=6).tolist()}
        lines += [f'u{user},{IDS[item]},{rng.integers(1, 6)},"{TITLES[item]}"' for item in sorted(chosen)]
    (tmp_path / "ratings.csv").write_text("\n".join([*lines, ""]))
    return tmp_path / "ratings.csv"


@pytest.fixture
def prepared(table: Path) -> PreparedRatings:
    config, _ = composed_config(overrides(table))
    return prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache)


def overrides(table: Path) -> list[str]:
    return ["method=fedgnn", "dataset=custom_ratings", f"dataset.path={table}", "dataset.scale=[1,5]"]


def trained(prepared: PreparedRatings, ids: list[int], seed: int = 0, **changes: Any) -> Recommender:
    """A random recommender by means; of any users the same."""
    said: dict[str, Any] = dict(
        model=RecommenderSettings(name="recommender", gnn="gcn", dim=3),
        num_items=prepared.num_items,
        scale=prepared.scale,
        center=prepared.center,
        spread=prepared.spread,
    )
    card = RecommenderCard(**(said | TRAINED | changes))
    rng = np.random.default_rng(seed)
    shapes = card.recommender.shapes, card.recommender.personal_shapes
    shared = {name: rng.normal(0, 0.4, size=shape).astype(np.float32) for name, shape in shapes[0].items()}
    own = {name: rng.normal(0, 0.4, size=(USERS, *shape)).astype(np.float32) for name, shape in shapes[1].items()}
    return Recommender(card, shared, np.arange(USERS), own).of_users(ids)


def run_of(path: Path, table: Path, *models: Recommender) -> Path:
    """Write a simulation's run directory, with a node for each of `models`."""
    config, _ = composed_config(overrides(table))
    run = RunDirectory.create(path)
    run.write_config(config.plain())
    for position, model in enumerate(models):
        model.write(run.recommender_folder / f"node-{position:04d}-of-{len(models):04d}.safetensors")
    return path


def folder_of(path: Path, data: PreparedRatings, client: int, **changes: Any) -> Path:
    said: dict[str, Any] = dict(
        dataset="custom_ratings", partition=data.key, num_clients=USERS, center=data.center, spread=data.spread,
        titles=data.titles(), key=bytes(32),
    )  # fmt: skip
    write_user_folder(path, data.ratings([client]), **(said | changes))
    return path


def by_hand(model: Recommender, ratings: Ratings, client: int) -> np.ndarray:
    """The client's predicted ratings of all items, unclipped, in float64."""
    row = model.client_ids.tolist().index(client)
    net = {name: values.astype(np.float64) for name, values in model.shared.items()}
    user, own_bias = model.personal["user"][row].astype(np.float64), model.personal["user_bias"][row]
    x, bias = net["items"][:, :-1], net["items"][:, -1] + net["bias"] + own_bias
    training = ratings.roles == TRAIN
    rated = ratings.items[training]
    rest = (ratings.values[training] - model.card.center) / model.card.spread - bias[rated]
    messages = x[rated] @ net["gnn.item"] + rest[:, None] * (x[rated] @ net["gnn.rating"])
    mean = messages.sum(0) / (np.exp(net["gnn.shrinkage"]) + len(rated))
    hidden = user + np.exp(net["gnn.gain"]) * mean
    predictions: np.ndarray = (x @ hidden + bias) * model.card.spread + model.card.center
    return predictions


def expected(model: Recommender, ratings: Ratings, client: int) -> tuple[list[int], list[float]]:
    """All items that may be recommended, best first, and what is predicted for them."""
    values = by_hand(model, ratings, client)
    taken = set(ratings.items[ratings.roles != TEST].tolist())
    best = sorted(set(range(ITEMS)) - taken, key=lambda item: (-values[item], item))
    return best, [float(np.clip(values[item], 1, 5)) for item in best]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys: pytest.CaptureFixture[str], arguments: list[object], *words: str) -> None:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert not out and line.startswith("subfl recommend: ") and all(word in line for word in words), line


def test_a_runs_clients_are_recommended_what_the_formulas_say(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [trained(prepared, [0, 2, 4]), trained(prepared, [1, 3])]
    run = run_of(tmp_path / "run", table, *nodes)
    held_out = 0
    for client in range(USERS):
        ratings = prepared.ratings([client])
        items, predicted = expected(nodes[client % 2], ratings, client)
        capsys.readouterr()
        out = tmp_path / "found" / f"{client}.csv"
        assert main([str(run), f"client={client}", "n=100", f"out={out}"]) == 0
        found = rows(out)
        assert list(found[0]) == ["item", "title", "score"]
        assert [row["item"] for row in found] == [IDS[item] for item in items]
        assert [row["title"] for row in found] == [TITLES[item] for item in items]
        np.testing.assert_allclose([float(row["score"]) for row in found], predicted, atol=1e-3)
        said = capsys.readouterr().out
        known = ratings.values[ratings.roles != TEST]
        assert "fedgnn's recommender of round 7 (custom_ratings)" in said
        assert (
            f"user u{client} (client {client}) has rated {len(known)} of 12 items, {known.mean():.2f} on average"
            in said
        )
        of_test = int(ratings.counts(TEST)[0])
        assert (f"{of_test} further ratings are held out for the test" in said) == bool(of_test)
        assert set(ratings.items[ratings.roles == TEST].tolist()) <= set(items)
        assert f"{len(items)} items in {out}" in said
        held_out += of_test
    assert held_out > 0


def test_the_best_ones_are_shown_with_their_titles(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(prepared, list(range(USERS)))
    run = run_of(tmp_path / "run", table, model)
    assert main([str(run), "client=2", "n=2"]) == 0
    shown = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("│")
    ]
    items, predicted = expected(model, prepared.ratings([2]), 2)
    assert [row[:2] for row in shown] == [[IDS[item], TITLES[item]] for item in items[:2]]
    np.testing.assert_allclose([float(row[2]) for row in shown], predicted[:2], atol=1e-3)
    assert len(recommended(open_user(run, 2), 10)[0]) == min(10, len(items))


def test_items_off_the_scale_are_still_told_apart(table: Path, prepared: PreparedRatings, tmp_path: Path) -> None:
    model = trained(prepared, [0])
    model.personal["user_bias"][:] = 50
    user = open_user(run_of(tmp_path / "run", table, model), 0)
    items, predicted = recommended(user, 100)
    assert items.tolist() == expected(model, prepared.ratings([0]), 0)[0]
    assert items.tolist() != sorted(items.tolist()) and predicted.tolist() == [5.0] * len(items)
    everything = Ratings(
        np.array([0]), np.array([0, ITEMS]), np.arange(ITEMS), np.ones(ITEMS, np.float32),
        np.full(ITEMS, VALIDATION, np.int8), ITEMS, (1.0, 5.0),
    )  # fmt: skip
    assert [len(part) for part in recommended(UserToRecommend(model, everything, None, None), 3)] == [0, 0]


def test_a_users_folder_uses_the_newest_of_its_runs(
    prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "client-03", prepared, 3)
    newest, earlier = (trained(prepared, [3], seed) for seed in (1, 2))
    for name, model, written in (("b", earlier, 1_000), ("a", newest, 2_000)):
        model.write(folder / "runs" / name / "model.safetensors")
        os.utime(folder / "runs" / name / "model.safetensors", (written, written))
    items, predicted = expected(newest, prepared.ratings([3]), 3)
    assert items != expected(earlier, prepared.ratings([3]), 3)[0]
    for arguments in ([], ["client=3"]):
        assert main([str(folder), *arguments, "n=4", f"out={tmp_path / 'out.csv'}"]) == 0
        found = rows(tmp_path / "out.csv")
        assert [int(row["item"]) for row in found] == items[:4]
        assert [row["title"] for row in found] == [TITLES[item] for item in items[:4]]
        np.testing.assert_allclose([float(row["score"]) for row in found], predicted[:4], atol=1e-3)
    refused(capsys, [folder, "client=1"], "client: ", "client-03 is the folder of client 3, not of 1")


@pytest.mark.parametrize("where", ["file", "folder", "state", "run"])
def test_the_recommender_may_lie_elsewhere(
    where: str, table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "client-01", prepared, 1, titles=None)
    model = trained(prepared, [0, 1])
    if where == "run":
        place = run_of(tmp_path / "run", table, model)
    else:
        kept = tmp_path / "kept" / "runs" / "r"
        model.write(kept / "model.safetensors")
        place = {"file": kept / "model.safetensors", "folder": kept, "state": tmp_path / "kept"}[where]
    assert main([str(place), f"data={folder}", f"out={tmp_path / 'out.csv'}"]) == 0
    found = rows(tmp_path / "out.csv")
    items, _ = expected(model, prepared.ratings([1]), 1)
    assert list(found[0]) == ["item", "score"]
    assert [int(row["item"]) for row in found] == items[:10]
    if where != "run":
        refused(capsys, [place], "neither a run directory nor a user's folder; data=")


def test_of_two_divisions_among_nodes_the_later_round_counts(
    table: Path, prepared: PreparedRatings, tmp_path: Path
) -> None:
    later = trained(prepared, [0, 1, 2, 3, 4], 1, round=9)
    run = run_of(tmp_path / "run", table, trained(prepared, [0, 1, 2]), trained(prepared, [3, 4]))
    later.write(run / "users" / "node-0000-of-0001.safetensors")
    trained(prepared, [0], 2, round=8).write(run / "users" / "node-0000-of-0005.safetensors")
    user = open_user(run, 0)
    assert user.recommender.card.round == 9 and user.recommender.client_ids.tolist() == [0] and user.client_id == 0
    assert recommended(open_user(run, 3), 99)[0].tolist() == expected(later, prepared.ratings([3]), 3)[0]


def test_bad_input_is_one_sentence(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run", table, trained(prepared, [0, 2]), trained(prepared, [1]))
    refused(capsys, [tmp_path / "absent"], "absent does not exist")
    refused(capsys, [run], "client: a number is required")
    refused(capsys, [run, "client=4"], "client: ", "run knows no client 4; its clients lie between 0 and 2")
    refused(capsys, [run, "client=-1"], "client: must be a whole number, 0 or more (found '-1')")
    refused(capsys, [run, "client=1", "n=0"], "n: must be a whole number, 1 or more (found '0')")
    refused(capsys, [run, "client=1", "n=" + "9" * 5000], "n: must be a whole number")
    refused(
        capsys, [run, "client=1", "top=3"], "top: there is no such setting; there are user, client, n, all, data, out"
    )
    refused(capsys, [run, "client="], "client: a value is required")
    refused(capsys, [run, f"data={tmp_path / 'absent'}"], "absent is not a client's folder")
    folder = folder_of(tmp_path / "client-00", prepared, 0)
    refused(capsys, [folder], "client-00 holds no recommender yet")
    trained(prepared, [1]).write(folder / "runs" / "r" / "model.safetensors")
    refused(capsys, [folder], "knows nothing of client 0, only of client 1")
    empty = run_of(tmp_path / "empty", table)
    refused(capsys, [empty, "client=0"], "empty holds no recommender: it is a run on graphs")
    (run / "users" / "node-0001-of-0002.safetensors").write_bytes(b"nothing")
    refused(capsys, [run, "client=0"], "node-0001-of-0002.safetensors does not hold a recommender: it is not a whole")
    assert main([]) == 2 and main(["--help"]) == 0


def test_a_file_that_cannot_be_written_is_named(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run", table, trained(prepared, [0]))
    assert main([str(run), "client=0", "out=/dev/null/x.csv"]) == 2
    assert re.search(r"subfl recommend: cannot write /dev/null/x.csv: .+", capsys.readouterr().err)


def test_other_data_than_were_trained_on_are_refused(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run", table, trained(prepared, [0], center=2.0))
    refused(capsys, [run, "client=0"], "holds other ratings than run-0 was trained on: its center is", "not 2")
    folder = folder_of(tmp_path / "client-00", prepared, 0, spread=9.0)
    trained(prepared, [0]).write(folder / "runs" / "r" / "model.safetensors")
    refused(capsys, [folder], "client-00 holds other ratings than run-0 was trained on: its spread is 9, not ")


def test_users_are_called_by_the_sources_ids(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(prepared, [0, 1, 2, 3, 4])
    run = run_of(tmp_path / "run", table, model)
    for arguments in (["user=u3"], ["user=u3", "client=3"]):
        assert main([str(run), *arguments, f"out={tmp_path / 'out.csv'}"]) == 0
        assert "user u3 (client 3) has rated" in capsys.readouterr().out
        items = expected(model, prepared.ratings([3]), 3)[0][:10]
        assert [row["item"] for row in rows(tmp_path / "out.csv")] == [IDS[item] for item in items]
    refused(capsys, [run, "user=u3", "client=2"], "client: the user u3 is client 3, not 2")
    refused(capsys, [run, "user=U3"], "user: ratings.csv has no user U3; the nearest is u3")
    refused(capsys, [run, "user=u33"], "user: ratings.csv has no user u33; the nearest is u3")
    refused(capsys, [run, "user=somebody"], "has no user somebody; it has 5 users, such as u0")


def test_everyone_is_recommended_what_each_one_is(
    table: Path, prepared: PreparedRatings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    nodes = [trained(prepared, [0, 2]), trained(prepared, [1, 4, 2], 1, round=8)]
    run = run_of(tmp_path / "run", table, *nodes)
    out = tmp_path / "all.csv"
    for arguments, scores_at_once in ((["--all"], 2**24), (["all=true"], 1), (["--all"], 3 * ITEMS)):
        monkeypatch.setattr(users, "_SCORES_AT_ONCE", scores_at_once)
        assert main([str(run), *arguments, "n=3", f"out={out}"]) == 0
        found = rows(out)
        assert list(found[0]) == ["user", "item", "title", "score"]
        wanted = []
        for client, model in ((0, nodes[0]), (1, nodes[1]), (2, nodes[1]), (4, nodes[1])):
            items, values = expected(model, prepared.ratings([client]), client)
            wanted += [
                (f"u{client}", IDS[item], TITLES[item], value)
                for item, value in zip(items[:3], values[:3], strict=True)
            ]
        assert [(row["user"], row["item"], row["title"]) for row in found] == [row[:3] for row in wanted]
        np.testing.assert_allclose([float(row["score"]) for row in found], [row[3] for row in wanted], atol=1e-3)
        said = capsys.readouterr().out
        assert "1 of 5 users are not known to the recommender" in said and f"12 items of 4 users in {out}" in said
    refused(capsys, [run, "--all"], "all: a file is required, as in out=recommendations.csv")
    refused(capsys, [run, "all=maybe", "out=x.csv"], "all: must be true or false (found 'maybe')")
    refused(capsys, [run, "--all", "client=1", f"out={out}"], "client: is of one user, and all=true is for all of them")
    folder = folder_of(tmp_path / "client-00", prepared, 0)
    refused(capsys, [folder, "--all", f"out={out}"], "client-00 is the folder of one user; all=true is for a run")


def test_the_best_are_told_apart_as_by_sorting() -> None:
    rng = np.random.default_rng(4)
    for length in (1, 5, 40):
        for scores in (rng.integers(0, 4, length), rng.normal(size=length), np.full(length, np.nan)):
            for n in (1, 3, 40):
                best = _best(scores.astype(np.float32), n)
                assert best.tolist() == sorted(range(length), key=lambda i: (-scores[i], i))[:n] or np.isnan(scores[0])
                assert len(best) == min(n, length)


def test_a_folder_and_a_simulation_say_the_same(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(prepared, [3], data=prepared.fingerprint)
    named = dict(user_name="u3", item_names=prepared.item_names(), fingerprint=prepared.fingerprint)
    folder = folder_of(tmp_path / "client-03", prepared, 3, **named)
    model.write(folder / "runs" / "r" / "model.safetensors")
    run = run_of(tmp_path / "run", table, model)
    said, written = [], []
    for arguments in ([run, "user=u3"], [folder], [folder, "user=u3"]):
        capsys.readouterr()
        assert main([*map(str, arguments), "n=5", f"out={tmp_path / 'out.csv'}"]) == 0
        said.append(capsys.readouterr().out)
        written.append(rows(tmp_path / "out.csv"))
    assert said[0] == said[1] == said[2] and "user u3 (client 3)" in said[0]
    assert written[0] == written[1] == written[2] and len(written[0]) == 5
    refused(capsys, [folder, "user=u1"], "user: ", "client-03 is the folder of user u3; leave user out")
    nameless = folder_of(tmp_path / "other", prepared, 3)
    refused(capsys, [nameless, "user=u3"], "is the folder of client 3, and does not say the user's id")


def test_ratings_that_have_changed_since_the_run_are_refused(
    table: Path, prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run", table, trained(prepared, [0, 1, 2, 3, 4], data=prepared.fingerprint))
    content = table.read_text()
    table.write_text(content.replace("\n", "\r\n"))
    assert main([str(run), "client=0"]) == 0  # it says the same
    table.write_text(content.replace(",10,", ",500,"))  # an item that comes later: all numbers mean others
    changed = (
        "the ratings have changed since the run: the content of ratings.csv (ids, ratings, titles or attributes) is"
    )
    for arguments in (["client=0"], ["user=u0"], ["--all", f"out={tmp_path / 'all.csv'}"]):
        refused(capsys, [run, *arguments], changed, "not what run-0 was trained on")
    folder = folder_of(tmp_path / "client-00", prepared, 0, fingerprint="ab" * 32)
    refused(capsys, [run, f"data={folder}"], "the ratings have changed since the run", "client-00")


def test_a_run_on_a_graph_has_no_recommender(
    prepared: PreparedRatings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = composed_config(["method=local", "dataset=digits"])
    run = RunDirectory.create(tmp_path / "run")
    run.write_config(config.plain())
    refused(capsys, [run.path, "client=0"], "run holds no recommender: it is a run on graphs")
    trained(prepared, [0]).write(run.recommender_folder / "node-0000-of-0001.safetensors")
    refused(capsys, [run.path, "client=0"], "run is a run on dataset=digits, partition=metis; it has no ratings")


def test_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "subfl recommend MODEL [user=ID | client=NUMBER | --all]" in capsys.readouterr().out
