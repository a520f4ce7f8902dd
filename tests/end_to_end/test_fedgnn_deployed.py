"""FedGNN's users on deployed nodes with a separate matcher, all in this process, without a simulation."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Message
from message_kinds import domain_of
from run_outcomes import Outcome, partition, recommend, run_inline

from subfl_flower.client_app import app
from subfl_flower.composition import composed_config
from subfl_flower.data.federation_schema import FEDERATION_FILE
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.node.matcher import FolderMemory
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.privacy.sealed_box import MatcherKey
from subfl_flower.recommendation.models.recommender_file import Recommender
from subfl_flower.server.federation import run_federation
from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.ragged import RAGGED

USERS = 6
DATA = (
    *("dataset=synthetic_ratings", f"dataset.num_users={USERS}", "dataset.num_items=16", "dataset.ratings_per_user=8"),
    "dataset.validation_fraction=0.2",
)
PLAIN = (
    *(*DATA, "method=fedgnn", "model.dim=3", "method.users_per_round=3", "method.pseudo_items=0"),
    *("method.max_neighbours=2", "method.expansion_every=2", "method.evaluate_every=1", "federation.rounds=4"),
)
"""A run in which only the seed determines randomness."""


class MachinesGrid(InlineGrid):
    """A machine for each user and one for the matcher, each of which starts a new process for every message.

    Args:
        folders: of the users.
        matcher: the matcher's folder; None: there is no matcher.
        trusted: the key that users were told is the matcher's.
        together: of so many users, the last ones, one machine has the folders.
    """

    def __init__(
        self, folders: list[Path], matcher: Path | None, *, trusted: str | None = None, together: int = 1
    ) -> None:
        alone = len(folders) - together
        self.schema = folders[0].parent / FEDERATION_FILE
        super().__init__(app, alone + 1 + (matcher is not None))
        hosted = [[folder] for folder in folders[:alone]] + [folders[alone:]]
        configs: list[dict[str, Any]] = [{"client": ",".join(map(str, own))} for own in hosted]
        if trusted is not None:
            configs = [{**config, "matcher-key": trusted} for config in configs]
        if matcher is not None:
            configs.append({"role": "matcher", "state": str(matcher), "least-users": 1, "least-common": 1})
        for context, config in zip(self._contexts.values(), configs, strict=True):
            context.node_config = config
        self.asked: list[Message] = []
        self.replies: list[Message] = []

    def _handle(self, message: Message) -> Message:
        forget_nodes()
        self.asked.append(message)
        self.replies.append(super()._handle(message))
        return self.replies[-1]

    def to(self, node: int) -> list[tuple[Message, Message]]:
        """Messages to a node, each with its reply."""
        pairs = zip(self.asked, self.replies, strict=True)
        return [(ask, reply) for ask, reply in pairs if ask.metadata.dst_node_id == node]

    def uploads(self) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Each node's uploads of the item table, by round and node."""
        found = {}
        for ask, reply in zip(self.asked, self.replies, strict=True):
            if domain_of(ask) == "train":
                rows = reply.content.array_records[RAGGED]
                key = int(ask.content.config_records["run"]["round"]), ask.metadata.dst_node_id  # type: ignore[arg-type]
                found[key] = {name: read_array(array) for name, array in rows.items()}
        return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], list[Path]]:
    """The users' folders, new at each call."""

    def made() -> list[Path]:
        out = tmp_path_factory.mktemp("machines") / "users"
        assert partition(["method=fedgnn", *DATA, f"out={out}"]) == 0
        return sorted(out.glob("client-*"))

    return made


def deployed(grid: MachinesGrid, directory: Path, *overrides: str) -> Outcome:
    config, _ = composed_config(["runtime=deploy", "runtime.node_timeout=1", f"schema={grid.schema}", *overrides])
    try:
        with grid.active():
            run_federation(grid, config, directory, threading.Event())
    finally:
        forget_nodes()
    return Outcome(directory)


def trained_at(folder: Path, run: Outcome) -> Recommender:
    return Recommender.read(folder / "runs" / run.summary["run_id"] / "model.safetensors")


def test_machines_of_their_own_give_the_numbers_of_a_simulation(
    folders: Callable[[], list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = folders()
    grid = MachinesGrid(users, tmp_path / "matcher", together=2)
    found = deployed(grid, tmp_path / "deployed", *PLAIN)
    expected = run_inline(tmp_path / "simulation", *PLAIN)
    (file,) = (tmp_path / "simulation" / "users").iterdir()
    simulated = Recommender.read(file)
    assert simulated.personal["num_neighbours"].max() == 2
    for mine, theirs in zip(found.rounds, expected.rounds, strict=True):
        assert (mine["failures"], theirs["failures"]) == ({}, {})
        for name in ("ids", "num_examples", "bytes_up", "bytes_down", "validation_examples", "test_examples"):
            assert mine["clients"][name] == theirs["clients"][name], name
        for name in ("validation", "test", "train_loss"):
            assert mine[name] == pytest.approx(theirs[name], abs=1e-4), name
            values = [np.array(record["clients"][name], dtype=float) for record in (mine, theirs)]
            np.testing.assert_allclose(values[0], values[1], atol=1e-4, err_msg=name)
    assert found.summary["best_round"] == expected.summary["best_round"]
    for phases in zip(found.summary["exchanges"], expected.summary["exchanges"], strict=True):
        assert len({(phase["action"], phase["bytes_up"], phase["bytes_down"]) for phase in phases}) == 1
    for client, folder in enumerate(users):
        own, alone = trained_at(folder, found), simulated.of_users([client])
        assert own.client_ids.tolist() == [client] and own.card.round == 4
        assert own.personal.keys() == alone.personal.keys() == {"user", "user_bias", "neighbours", "num_neighbours"}
        for values, wanted in ((own.personal, alone.personal), (own.shared, alone.shared)):
            for name in wanted:
                np.testing.assert_allclose(values[name], wanted[name], atol=1e-4, err_msg=f"{client} {name}")
    # What a user's machine has at the end is enough to recommend, and gives what the simulation gives.
    capsys.readouterr()
    assert recommend([str(users[3]), "n=2"]) == 0
    own_words = capsys.readouterr().out
    assert "fedgnn's recommender of round 4" in own_words and "user 3 (client 3) has rated" in own_words
    assert recommend([str(tmp_path / "simulation"), "client=3", "n=2"]) == 0
    predicted = [line.split("│")[-2].strip() for line in own_words.splitlines() if line.startswith("│")]
    theirs = [line.split("│")[-2].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(predicted) == 2
    np.testing.assert_allclose(np.array(predicted, float), np.array(theirs, float), atol=2e-4)


def test_what_hides_a_user_comes_from_a_secret_of_its_machine_and_run(
    folders: Callable[[], list[Path]], tmp_path: Path
) -> None:
    """The server knows the run's seed; from that alone it must not be able to redraw pseudo items or noise."""
    hidden = (*DATA, "method=fedgnn", "model.dim=3", "method.users_per_round=6", "method.pseudo_items=4")
    noisy = (*hidden, "privacy=laplace_linf", "federation.rounds=2")
    users = folders()
    grids = [MachinesGrid(users, None), MachinesGrid(users, None)]
    for number, grid in enumerate(grids):
        deployed(grid, tmp_path / f"run-{number}", *noisy)
    first, second = (grid.uploads() for grid in grids)
    assert sorted(first) == sorted(second) == [(r, node) for r in (1, 2) for node in range(1, 7)]
    for node in range(1, 7):  # the same items for a whole run, and others in another
        np.testing.assert_array_equal(first[1, node]["item_ids"], first[2, node]["item_ids"])
    assert any(set(first[1, n]["item_ids"].tolist()) != set(second[1, n]["item_ids"].tolist()) for n in range(1, 7))
    rows = [uploads[key]["item_rows"] for uploads in (first, second) for key in sorted(uploads)]
    assert len({values.tobytes() for values in rows}) == len(rows) == 24
    bare = (MachinesGrid(users, None), MachinesGrid(users, None))
    for number, grid in enumerate(bare):
        deployed(grid, tmp_path / f"bare-{number}", *noisy, "method.pseudo_items=0", "federation.rounds=1")
    first, second = (grid.uploads() for grid in bare)
    for key, upload in first.items():  # the same users, round, items and first parameters, and other noise
        np.testing.assert_array_equal(upload["item_ids"], second[key]["item_ids"])
        assert (upload["item_rows"] != second[key]["item_rows"]).all()
    keys = [(folder / "own.key").read_bytes() for folder in users]
    assert len({*keys}) == 6 and all(len(key) == 32 for key in keys)
    assert all((folder / "own.key").stat().st_mode & 0o077 == 0 for folder in users)


class Replaying(MachinesGrid):
    """Keeps the boxes for the matcher, and puts an earlier one in the place of the first of them."""

    earlier: Array | None = None

    def __init__(self, *given: Any, **rest: Any) -> None:
        super().__init__(*given, **rest)
        self.boxes: list[Array] = []
        self.refused: list[dict[str, str]] = []

    def _handle(self, message: Message) -> Message:
        if domain_of(message) != "query.match":
            return super()._handle(message)
        record = message.content.array_records["arrays"]
        self.boxes += record.values()
        if self.earlier is not None:
            record["0/box"] = self.earlier
        reply = super()._handle(message)
        self.refused.append(json.loads(str(reply.content.config_records["outcome"]["failures"])))
        return reply


def test_the_matcher_keeps_its_key_and_which_boxes_of_a_run_it_has_opened(
    folders: Callable[[], list[Path]], tmp_path: Path
) -> None:
    users, matcher = folders(), tmp_path / "matcher"
    public = FolderMemory(matcher, "").key().public

    def run(name: str, earlier: Array | None) -> tuple[Replaying, set[bytes]]:
        # Users who were told the matcher's key beforehand seal to no other.
        grid = Replaying(users, matcher, trusted=public.hex())
        grid.earlier = earlier
        found = deployed(grid, tmp_path / name, *PLAIN, "federation.rounds=3")
        (roster,) = (reply for ask, reply in grid.to(USERS + 1) if domain_of(ask) == "query.roster")
        assert roster.content.config_records["roster"]["public_key"] == public
        opened = (matcher / "runs" / found.summary["run_id"] / "opened.keys").read_bytes()
        assert len(grid.boxes) == 2 * USERS  # rounds 1 and 3
        return grid, {opened[start : start + 32] for start in range(0, len(opened), 32)}

    first, opened = run("first", None)
    assert opened == {read_array(box).tobytes()[:32] for box in first.boxes} and first.refused == [{}, {}]
    # The same users, key and round, and another run: it does not open.
    second, opened = run("second", first.boxes[0])
    assert len(opened) == 2 * (USERS - 1)
    assert second.refused == [{"0": "a sealed box was changed on its way, or is not of this key, round or run"}] * 2
    assert (matcher / "matcher.key").stat().st_mode & 0o077 == 0


def test_a_box_is_not_opened_twice_however_many_processes_are_between(
    folders: Callable[[], list[Path]], tmp_path: Path
) -> None:
    class Repeating(MachinesGrid):
        def _handle(self, message: Message) -> Message:
            if domain_of(message) == "query.match":
                again = super()._handle(message), super()._handle(message)
                self.twice = [reply.content.config_records["outcome"] for reply in again]
                return again[0]
            return super()._handle(message)

    grid = Repeating(folders(), tmp_path / "matcher")
    deployed(grid, tmp_path / "run", *PLAIN, "federation.rounds=1")
    assert sorted(grid.twice[0]["clients"]) == list(range(USERS)) and grid.twice[1]["clients"] == []  # type: ignore
    reasons = set(json.loads(str(grid.twice[1]["failures"])).values())
    assert reasons == {"a sealed box was sent a second time"}


def test_users_who_trust_another_matcher_are_told_of_nobody(
    folders: Callable[[], list[Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that hands out its own key learns nothing from users who were told the matcher's."""
    users = folders()
    grid = MachinesGrid(users, tmp_path / "matcher", trusted=MatcherKey.generate().public.hex())
    run = deployed(grid, tmp_path / "run", *PLAIN, "federation.rounds=1")
    assert run.summary["status"] == "completed"
    assert all(trained_at(folder, run).personal["num_neighbours"] == [0] for folder in users)
    assert (
        f"the matcher refused {USERS} boxes: a sealed box was changed on its way, or is not of this key, round or run"
        in caplog.messages
    )


def test_without_a_matcher_training_starts_and_goes_on_and_says_so(
    folders: Callable[[], list[Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = folders()
    found = deployed(MachinesGrid(users, None), tmp_path / "run", *PLAIN, "runtime.node_timeout=0.05")
    assert found.summary["status"] == "completed" and len(found.rounds) == 4
    for server_round in (1, 3):
        said = f"round {server_round} goes on without an expansion of graphs: no node is the matcher at the moment"
        assert caplog.messages.count(said) == 1
    assert all(trained_at(folder, found).personal["num_neighbours"] == [0] for folder in users)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"role": "matcher"}, "the matcher keeps its key in a folder; start it with --node-config 'role="),
        ({"role": "judge"}, "this SuperNode's role is 'judge'; --node-config 'role' must be client or matcher"),
    ],
    ids=["no folder", "another role"],
)
def test_a_node_that_cannot_be_the_matcher_is_refused_in_words(
    folders: Callable[[], list[Path]], tmp_path: Path, config: dict[str, Any], sentence: str
) -> None:
    grid = MachinesGrid(folders(), tmp_path / "matcher")
    grid._contexts[USERS + 1].node_config = config
    run = deployed(grid, tmp_path / "run", *PLAIN, "federation.rounds=1", "runtime.node_timeout=0.05")
    (refusal,) = run.summary["refused"]
    assert refusal["reason"].startswith(f"a node could not open its clients: {sentence}")
