"""The server's checkpoint comes back as it was, and a run directory goes back to the round that it is of."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.checkpoint import Checkpoint
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.oracle import Oracle
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.fedpub import FedPUB
from subfl_flower.strategies.subgraphs.gcfl import GCFL, GCFLPlus
from subfl_flower.strategies.subgraphs.local import Local
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.wire.contract import MethodSettings, RunContext
from subfl_flower.wire.roster import Roster, Shape

FILE = "server.safetensors"
ROSTER = Roster(
    client_ids=(0, 4, 7),
    node_ids=(10**18, None, 3),
    num_examples=np.array([5.0, np.nan, 7.0]),
    num_nodes=np.array([50.0, np.nan, 70.0]),
    num_edges=np.array([500.0, np.nan, 700.0]),
    num_features=12,
    num_classes=3,
    overlapping=True,
    user_values=(7, 2),
    item_values=(19,),
)


def stacks() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    broadcast = generator.standard_normal((4, 2)).astype(np.float32)
    personal = generator.standard_normal((3, 4, 2)).astype(np.float32)
    return {
        "broadcast": np.broadcast_to(broadcast, (3, 4, 2)),
        "personal": personal,
        "transposed": personal.swapaxes(1, 2),
        "alike": np.repeat(broadcast[None], 3, axis=0),
        "mixing": np.array([[0.1, np.nan, np.inf]] * 3),
        "is_described": np.array([True, False, True]),
        "cluster_of": np.array([0, 2**40, 1]),
        "scalar": np.array(3.5),
        "nobody": np.zeros((0, 4), np.float32),
    }


CHECKPOINT = Checkpoint(
    run_id="0123456789abcdef",
    server_round=17,
    roster=ROSTER,
    strategy=stacks(),
    exchanges=[{"action": "structure", "bytes_up": 123, "bytes_down": 0, "seconds": 0.25}],
    seconds=12.75,
)


def test_everything_comes_back(tmp_path: Path) -> None:
    CHECKPOINT.write(tmp_path / "new" / "folder")
    found = Checkpoint.read(tmp_path / "new" / "folder")
    for name in ("run_id", "server_round", "exchanges", "seconds"):
        assert getattr(found, name) == getattr(CHECKPOINT, name), name
    assert set(found.strategy) == set(stacks())
    for name, values in stacks().items():
        assert found.strategy[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found.strategy[name], values, err_msg=name)


def test_the_roster_comes_back_without_its_nodes(tmp_path: Path) -> None:
    """Flower's ids are others after a restart; a client that was never there has no sizes yet."""
    CHECKPOINT.write(tmp_path)
    found = Checkpoint.read(tmp_path).roster
    assert found.client_ids == (0, 4, 7) and found.node_ids == (None, None, None) and found.reachable == []
    assert (found.num_features, found.num_classes, found.overlapping) == (12, 3, True)
    assert (found.user_values, found.item_values) == ((7, 2), (19,))
    np.testing.assert_array_equal(found.num_examples, [5, np.nan, 7])
    np.testing.assert_array_equal(found.num_nodes, [50, np.nan, 70])
    np.testing.assert_array_equal(found.num_edges, [500, np.nan, 700])


def test_what_is_one_row_in_memory_is_one_row_on_disk_and_again_in_memory(tmp_path: Path) -> None:
    """Messages send such rows once, and count on it; rows that are only alike stay rows."""
    CHECKPOINT.write(tmp_path)
    with safe_open(tmp_path / FILE, framework="numpy") as file:
        on_disk = {name: file.get_slice(name).get_shape() for name in ("broadcast", "personal", "alike")}
    assert on_disk == {"broadcast": [1, 4, 2], "personal": [3, 4, 2], "alike": [3, 4, 2]}
    found = Checkpoint.read(tmp_path).strategy
    assert found["broadcast"].shape == (3, 4, 2) and found["broadcast"].strides[0] == 0
    assert found["alike"].strides[0] != 0 and found["personal"].strides[0] != 0


def test_what_a_strategy_works_on_in_place_can_be_written_to(tmp_path: Path) -> None:
    CHECKPOINT.write(tmp_path)
    found = Checkpoint.read(tmp_path).strategy
    found["personal"][1] = 7
    assert (found["personal"][1] == 7).all()


def test_a_strategy_with_nothing_to_remember(tmp_path: Path) -> None:
    replace(CHECKPOINT, strategy={}, exchanges=[], server_round=0).write(tmp_path)
    found = Checkpoint.read(tmp_path)
    assert found.strategy == {} and found.exchanges == [] and found.server_round == 0


def test_a_later_checkpoint_replaces_the_earlier_and_what_a_killed_writer_left(tmp_path: Path) -> None:
    CHECKPOINT.write(tmp_path)
    (tmp_path / f".{FILE}.4711.0badcafe").write_bytes(b"half")
    (tmp_path / "clients").mkdir()
    replace(CHECKPOINT, server_round=18).write(tmp_path)
    assert Checkpoint.read(tmp_path).server_round == 18
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clients", FILE]


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHECKPOINT.write(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SubflError) as error:
        replace(CHECKPOINT, server_round=18).write(tmp_path)
    assert str(error.value) == f"a checkpoint cannot be written to {tmp_path / FILE}: No space left on device"
    assert Checkpoint.read(tmp_path).server_round == 17
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SubflError) as error:
        Checkpoint.read(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / FILE} does not exist: the run left no checkpoint (record.checkpoint_every), so it can only be "
        "started again"
    )


# What strategies remember --------------------------------------------------------------------------------------------

CLIENTS, WIDTH = 6, 4
INITIAL = {
    "conv1.weight": np.ones((3, WIDTH), np.float32),
    "conv1.bias": np.zeros(WIDTH, np.float32),
    "classifier.weight": np.ones((WIDTH, 2), np.float32),
}
SHAPE = Shape(num_features=3, num_classes=2)
NETWORK = StackedGCN(ModelSettings(name="gcn", layers=1, hidden=WIDTH), num_features=3, num_outputs=2)
STRATEGIES: dict[str, tuple[type[CohortStrategy], MethodSettings]] = {
    "fedavg": (FedAvg, FedAvg.Settings()),
    "fedper": (FedAvg, FedAvg.Settings(personal_layers=("classifier",))),
    "local": (Local, Local.Settings()),
    "fedpub": (FedPUB, FedPUB.Settings()),
    "parameters": (FedPUB, FedPUB.Settings(similarity="parameter")),
    "communities": (FedPUB, FedPUB.Settings(community_threshold=0.1)),
    "gcfl": (GCFL, GCFL.Settings(first_split=4, epsilon1=5)),
    "gcfl+": (GCFLPlus, GCFLPlus.Settings(first_split=1, epsilon1=5, window=2)),
    "oracle": (Oracle, Oracle.Settings()),
}


def new(name: str, roster: Roster) -> CohortStrategy:
    family, settings = STRATEGIES[name]
    return family(RunContext(settings=settings, shape=SHAPE, network=NETWORK, initial=INITIAL), roster)


def trained(strategy: CohortStrategy, server_round: int) -> Updates:
    """A round of some clients, whose updates depend on the round and on what they were sent."""
    generator = np.random.default_rng(server_round)
    positions = np.sort(generator.choice(CLIENTS, 3, replace=False))
    sent = strategy.instructions(server_round, positions.tolist())
    arrays = {name: value + generator.standard_normal(value.shape).astype(np.float32) for name, value in sent.items()}
    arrays["functional_embedding"] = generator.standard_normal((3, WIDTH)).astype(np.float32)
    nothing = np.zeros(CLIENTS, dtype=np.int64)
    return Updates(server_round, positions, arrays, {"num_examples": np.ones(3)}, {}, nothing, nothing, 0.0)


def assert_alike(one: CohortStrategy, other: CohortStrategy) -> None:
    state, expected = one.state(), other.state()
    assert set(state) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name], values, err_msg=name)
    for name, values in other.instructions(1, range(CLIENTS)).items():
        np.testing.assert_array_equal(one.instructions(1, range(CLIENTS))[name], values, err_msg=name)
    assert (one.mixing is None) == (other.mixing is None)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_on_from_its_checkpoint_as_if_nothing_had_happened(tmp_path: Path, name: str) -> None:
    """Another process takes over after every one of sixteen rounds, in each of which half of the clients take part."""
    sizes = np.arange(1.0, CLIENTS + 1)
    roster = Roster(tuple(range(CLIENTS)), (1,) * CLIENTS, sizes, sizes, sizes, 3, 2, False)
    strategy, other = new(name, roster), new(name, roster)
    clusters = set()
    for server_round in range(1, 17):
        Checkpoint("ab", server_round - 1, roster, other.state()).write(tmp_path)
        other = new(name, roster)
        other.load_state(Checkpoint.read(tmp_path).strategy)
        assert_alike(other, strategy)
        for one in (strategy, other):
            one.take(trained(one, server_round))
        assert_alike(other, strategy)
        if isinstance(strategy, GCFL):
            clusters.add(len(strategy.clusters))
    assert not isinstance(strategy, GCFL) or len(clusters) > 1


# What is no checkpoint ----------------------------------------------------------------------------------------------


def about(**changes: Any) -> dict[str, Any]:
    roster = {
        "client_ids": [0, 1], "num_examples": [1.0, 2.0], "num_nodes": [1.0, None], "num_edges": [1.0, 2.0],
        "num_features": 2, "num_classes": 2, "overlapping": False,
    }  # fmt: skip
    base = {
        "kind": "checkpoint",
        "schema": 3,
        "run_id": "ab",
        "round": 3,
        "roster": roster,
        "exchanges": [],
        "seconds": 1,
        "repeated": {},
    }
    return {**base, **changes}


def written(folder: Path, about: Any) -> None:
    metadata = None if about is None else {"card": about if isinstance(about, str) else json.dumps(about)}
    save_file({"w": np.zeros((1, 2), np.float32), "s": np.zeros((), np.float32)}, folder / FILE, metadata)


def test_the_form_of_the_file(tmp_path: Path) -> None:
    """The basis of the cases below, each of which changes one entry, can be read."""
    written(tmp_path, about(repeated={"w": 2}))
    found = Checkpoint.read(tmp_path)
    assert found.server_round == 3 and found.strategy["w"].shape == (2, 2)
    np.testing.assert_array_equal(found.roster.num_nodes, [1, np.nan])
    assert (found.roster.user_values, found.roster.item_values) == ((), ())  # a file that says nothing of attributes


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, " does not hold a checkpoint: it does not say what it is"),
        ("{", ": card: Invalid JSON"),
        ("[" * 5000, ": card: Invalid JSON"),
        ("[]", ": card: Input should be an object"),
        ("3", ": card: Input should be an object"),
        ({}, " does not hold a checkpoint: its card states no kind, where 'checkpoint' belongs"),
        ({"kind": "checkpoint"}, " does not hold a checkpoint: its card does not state a schema"),
        ({key: value for key, value in about().items() if key != "repeated"}, ": card.repeated: Field required"),
        (about(repeated={"absent": 2}), " does not hold a checkpoint: KeyError: 'absent'"),
        (about(repeated={"w": 10**30}), " does not hold a checkpoint: "),
        (about(repeated={"w": -2}), ": card.repeated.w: Input should be greater than or equal to 1"),
        (about(repeated={"w": "many"}), ": card.repeated.w: Input should be a valid integer"),
        (about(repeated=[["w", 2]]), ": card.repeated: Input should be an object"),
        (about(round="three"), ": card.round: Input should be a valid integer"),
        (about(round="3"), ": card.round: Input should be a valid integer"),
        (about(round=True), ": card.round: Input should be a valid integer"),
        (about(round=None), ": card.round: Input should be a valid integer"),
        (about(seconds="long"), ": card.seconds: Input should be a valid number"),
        (about(exchanges=None), ": card.exchanges: Input should be a valid array"),
        (about(roster=None), ": card.roster: Input should be an object"),
        (
            about(roster={**about()["roster"], "client_ids": [0, 1, 2]}),
            ": card.roster: Value error, its roster has not",
        ),
        (about(roster={**about()["roster"], "num_nodes": ["a", "b"]}), ": card.roster.num_nodes.0: Input should be a"),
        (
            about(roster={**about()["roster"], "num_nodes": [1, 10**400]}),
            ": card.roster.num_nodes.1: Input should be a",
        ),
        (about(roster={**about()["roster"], "num_edges": 3}), ": card.roster.num_edges: Input should be a valid array"),
        (about(roster={**about()["roster"], "client_ids": [False, True]}), ": card.roster.client_ids.0: Input should"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path: Path, wrong: Any, words: str) -> None:
    written(tmp_path, wrong)
    with pytest.raises(SubflError) as error:
        Checkpoint.read(tmp_path)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / FILE}{words}") and "\n" not in text


@pytest.mark.parametrize(("schema", "age"), [(1, "an older"), (2, "an older"), (4, "a newer")])
def test_another_schema_is_named(tmp_path: Path, schema: int, age: str) -> None:
    """A strategy of schema 1 kept what it knew of absent clients under other names."""
    written(tmp_path, about(schema=schema))
    with pytest.raises(SubflError) as error:
        Checkpoint.read(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / FILE} does not hold a checkpoint: {age} version wrote it "
        f"(schema {schema}, this version reads the schema 3)"
    )


def test_what_is_written_says_its_schema(tmp_path: Path) -> None:
    CHECKPOINT.write(tmp_path)
    with safe_open(tmp_path / FILE, framework="numpy") as file:
        assert json.loads(file.metadata()["card"])["schema"] == 3


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-1],
    "empty": lambda content: b"",
    "header": lambda content: content[:4] + content[8:],
    "another type": lambda content: content.replace(b'"F32"', b'"F99"'),
    "a type that NumPy lacks": lambda content: content.replace(b'"I64"', b'"E64"'),
    "too long": lambda content: content + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path: Path, damage: str) -> None:
    CHECKPOINT.write(tmp_path)
    (tmp_path / FILE).write_bytes(DAMAGES[damage]((tmp_path / FILE).read_bytes()))
    with pytest.raises(SubflError) as error:
        Checkpoint.read(tmp_path)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / FILE} does not hold a checkpoint: it is not a whole safetensors file (")
    assert "\n" not in text


def test_a_half_precision_of_another_library_is_refused(tmp_path: Path) -> None:
    half = {"w": np.zeros((1, 4), np.float16)}
    contents = (save(half, {"card": json.dumps(about(run_id="a" * length))}) for length in range(1, 9))
    content = next(content for content in contents if b"  " in content)  # blanks fill a header up to eight bytes
    (tmp_path / FILE).write_bytes(content.replace(b'"F16"', b'"BF16"').replace(b"  ", b" ", 1))
    with pytest.raises(
        SubflError, match=r"server\.safetensors does not hold a checkpoint: .*\(data type 'bfloat16' not understood\)"
    ):
        Checkpoint.read(tmp_path)


# The run directory goes back to the checkpoint's round --------------------------------------------------------------


def broken_off(folder: Path, rounds: int = 5) -> RunDirectory:
    run = RunDirectory.create(folder)
    run.write_config({"seed": 0})
    for number in range(1, rounds + 1):
        run.append_round(
            {"round": number, "test": number / 7, "clients": {"ids": [0, 1, 2], "test": [None, 1 / 3, 1e-300]}}
        )
        run.add_mixing(number, np.full((2, 2), number / 3))
    run.write_summary({"status": "failed"})
    return run


@pytest.mark.parametrize("server_round", [0, 1, 3, 5])
def test_rounds_and_mixing_after_the_checkpoint_are_cut_off(tmp_path: Path, server_round: int) -> None:
    before = broken_off(tmp_path).rounds()
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    run = RunDirectory.reopen(tmp_path, server_round)
    assert run.rounds() == before[:server_round]
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(lines[:server_round])
    assert list(run.mixing()) == list(range(1, server_round + 1))
    for number, matrix in run.mixing().items():
        np.testing.assert_array_equal(matrix, np.full((2, 2), number / 3))
    assert run.summary() is None and run.config() == {"seed": 0}
    # And it goes on.
    run.append_round({"round": server_round + 1, "test": 9})
    run.add_mixing(server_round + 1, np.eye(2))
    again = RunDirectory(tmp_path)
    assert [record["round"] for record in again.rounds()] == list(range(1, server_round + 2))
    assert again.rounds()[-1]["test"] == 9
    assert list(again.mixing()) == list(range(1, server_round + 2))
    np.testing.assert_array_equal(again.mixing()[server_round + 1], np.eye(2))


@pytest.mark.parametrize("torn", [b'{"round":6,"te', b"\xff\xfe", b'{"round":6,"test":1}'])
def test_a_torn_line_goes_with_the_rounds_after_the_checkpoint(tmp_path: Path, torn: bytes) -> None:
    broken_off(tmp_path)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    RunDirectory.reopen(tmp_path, 5)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_round_that_was_repeated_counts_as_it_was_last(tmp_path: Path) -> None:
    run = broken_off(tmp_path, 3)
    run.append_round({"round": 2, "test": 42})
    assert [record["test"] for record in RunDirectory.reopen(tmp_path, 3).rounds()] == [1 / 7, 42, 3 / 7]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    broken_off(tmp_path)
    for name in (".metrics.jsonl.77.tmp", ".mixing.npz.78.tmp", ".summary.json.79.tmp"):
        (tmp_path / name).write_bytes(b"half")
    RunDirectory.reopen(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "metrics.jsonl", "mixing.npz"]


def test_a_run_without_the_rounds_up_to_its_checkpoint_is_left_as_it_is(tmp_path: Path) -> None:
    broken_off(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (lines[:3], [*lines[:1], *lines[2:]]):
        (tmp_path / "metrics.jsonl").write_bytes(b"".join(kept))
        with pytest.raises(SubflError) as error:
            RunDirectory.reopen(tmp_path, 4)
        assert str(error.value) == (f"{tmp_path / 'metrics.jsonl'} does not hold all rounds up to 4, the checkpoint's")
        assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(kept)
        assert (tmp_path / "summary.json").exists()
