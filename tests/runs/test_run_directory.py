import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import yaml

from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def test_create_refuses_a_folder_that_holds_a_run_and_leaves_it_as_it_was(run: RunDirectory) -> None:
    run.append_round({"round": 1})
    with pytest.raises(SubflError, match="already holds a run"):
        RunDirectory.create(run.path)
    assert run.rounds() == [{"round": 1}]


def test_create_takes_a_folder_that_hydra_made(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "subfl.log").write_text("")
    assert not RunDirectory.is_run(tmp_path)
    assert not RunDirectory.is_run(tmp_path / ".hydra")
    RunDirectory.create(tmp_path)
    assert RunDirectory.is_run(tmp_path)


def test_create_says_when_the_path_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SubflError, match=r"cannot write .*taken"):
        RunDirectory.create(tmp_path / "taken")


def test_opening_a_run_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "none")
    assert (run.rounds(), run.summary(), run.mixing(), run.clusters()) == ([], None, {}, {})
    with pytest.raises(SubflError, match=r"cannot read .*config\.yaml"):
        run.config()
    assert list(tmp_path.iterdir()) == []


def test_config_keeps_values_types_and_order(run: RunDirectory) -> None:
    config = {"seed": 0, "method": {"name": "fedpub", "tau": 3.0, "layers": (1, 2)}, "root": Path("data")}
    run.write_config({**config, "lr": np.float64(0.01)})
    text = (run.path / "config.yaml").read_text()
    expected = {
        "seed": 0,
        "method": {"name": "fedpub", "tau": 3.0, "layers": [1, 2]},
        "root": "data",
        "lr": 0.01,
    }
    assert yaml.safe_load(text) == expected == run.config()
    assert list(run.config()) == ["seed", "method", "root", "lr"]


def test_each_round_is_one_line_of_strict_json_as_soon_as_it_is_appended(run: RunDirectory) -> None:
    run.append_round({"round": np.int64(1), "test": np.float32(0.5), "clients": {"ids": np.arange(3)}})
    run.append_round({"round": 2, "train_loss": float("nan"), "clients": {"ids": [0, 1], "test": [float("inf"), 0.25]}})
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"round": 1, "test": 0.5, "clients": {"ids": [0, 1, 2]}}
    assert json.loads(lines[1]) == {"round": 2, "train_loss": None, "clients": {"ids": [0, 1], "test": [None, 0.25]}}
    assert run.rounds() == [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (b'{"round":3,"te', [1, 2]),
        (b'{"round":3}', [1, 2, 3]),
        (b'{"round":3,"x":"\xc3', [1, 2]),
        (b"", [1, 2]),
    ],
)
def test_a_torn_last_line_is_left_out_and_gone_once_the_run_goes_on(
    run: RunDirectory, tail: bytes, kept: list[int]
) -> None:
    path = run.path / "metrics.jsonl"
    path.write_bytes(b'{"round":1}\n{"round":2}\n' + tail)
    assert [record["round"] for record in run.rounds()] == kept
    resumed = RunDirectory(run.path)
    resumed.append_round({"round": 4})
    assert [record["round"] for record in resumed.rounds()] == [*kept, 4]
    assert path.read_bytes().count(b"\n") == len(kept) + 1


def test_a_broken_line_in_the_middle_is_named(run: RunDirectory) -> None:
    (run.path / "metrics.jsonl").write_text('{"round":1}\n{"rou\n{"round":3}\n')
    with pytest.raises(SubflError, match=r"metrics\.jsonl, line 2"):
        run.rounds()


def test_a_round_that_a_resumed_run_repeats_replaces_the_first_record(run: RunDirectory) -> None:
    for number, test in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.25)):
        run.append_round({"round": number, "test": test})
    assert [(record["round"], record["test"]) for record in run.rounds()] == [(1, 0.1), (2, 0.25), (3, 0.3)]


def test_summary_is_replaced_whole_and_leaves_no_temporary_file(run: RunDirectory) -> None:
    run.write_summary({"status": "interrupted"})
    run.write_summary({"status": "completed", "test_last": np.float64(0.5)})
    assert run.summary() == {"status": "completed", "test_last": 0.5}
    assert sorted(path.name for path in run.path.iterdir()) == ["metrics.jsonl", "summary.json"]


def test_a_summary_that_cannot_be_encoded_leaves_the_old_one(run: RunDirectory) -> None:
    run.write_summary({"status": "interrupted"})
    with pytest.raises(TypeError):
        run.write_summary({"status": object()})
    assert run.summary() == {"status": "interrupted"}


def test_a_failed_replacement_leaves_neither_half_nor_temporary_file(run: RunDirectory) -> None:
    (run.path / "summary.json").mkdir()
    with pytest.raises(SubflError, match=r"cannot write .*summary\.json"):
        run.write_summary({"status": "completed"})
    assert sorted(path.name for path in run.path.iterdir()) == ["metrics.jsonl", "summary.json"]


def test_mixing_matrices_come_back_by_round_and_a_resumed_run_adds_to_them(run: RunDirectory) -> None:
    matrices = {number: np.random.default_rng(number).random((10, 10)) for number in (10, 1, 100)}
    for number in (10, 1):
        run.add_mixing(number, matrices[number])
    RunDirectory(run.path).add_mixing(100, matrices[100])
    read = run.mixing()
    assert list(read) == [1, 10, 100]
    for number, matrix in matrices.items():
        np.testing.assert_array_equal(read[number], matrix)
    with np.load(run.path / "mixing.npz") as file:
        assert sorted(file.files) == ["round_0001", "round_0010", "round_0100"]


def test_a_matrix_that_is_changed_later_is_kept_as_it_was_given(run: RunDirectory) -> None:
    matrix = np.eye(3)
    run.add_mixing(1, matrix)
    matrix[:] = 7
    run.add_mixing(2, matrix)
    np.testing.assert_array_equal(run.mixing()[1], np.eye(3))


def test_a_mixing_matrix_must_be_square(run: RunDirectory) -> None:
    with pytest.raises(SubflError, match=r"clients x clients, not \(2, 3\)"):
        run.add_mixing(1, np.zeros((2, 3)))
    assert run.mixing() == {}


def clusterings(*rounds: int) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ids, labels and points of a few more users each time."""
    draw = np.random.default_rng(0)
    return {
        number: (
            draw.permutation(30)[: 10 + place].astype(np.int64),
            draw.integers(-1, 4, 10 + place),
            draw.normal(size=(10 + place, 2)).astype(np.float32),
        )
        for place, number in enumerate(rounds)
    }


def test_clusters_come_back_by_round_and_a_resumed_run_adds_to_them(run: RunDirectory) -> None:
    assert run.clusters() == {}
    given = clusterings(20, 5, 12345)
    for number in (20, 5):
        run.add_clusters(number, *given[number])
    RunDirectory(run.path).add_clusters(12345, *given[12345])
    read = run.clusters()
    assert list(read) == [5, 20, 12345]
    for number, (ids, labels, points) in given.items():
        np.testing.assert_array_equal(read[number].client_ids, ids)
        np.testing.assert_array_equal(read[number].labels, labels)
        np.testing.assert_array_equal(read[number].points, points)
        assert (read[number].labels.dtype, read[number].points.dtype) == (np.int64, np.float32)
    assert sorted(path.name for path in run.path.iterdir()) == ["clusters.npz", "metrics.jsonl"]


def test_clusters_that_are_changed_later_are_kept_as_they_were_given(run: RunDirectory) -> None:
    ids, labels, points = (array.copy() for array in clusterings(1)[1])
    run.add_clusters(1, ids, labels, points)
    for array in (ids, labels, points):
        array[:] = 7
    run.add_clusters(2, *clusterings(1)[1])
    for one, two in zip(vars(run.clusters()[1]).values(), vars(run.clusters()[2]).values(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(9)}, r"round 3: .* points \[K, 2\], not \(10,\), \(9,\) and \(10, 2\)"),
        ({"points": np.zeros((10, 3))}, r"not \(10,\), \(10,\) and \(10, 3\)"),
        ({"client_ids": np.zeros(10)}, "a client id comes twice"),
        ({"labels": np.full(10, -2)}, "-1 for none, not -2"),
    ],
)
def test_clusters_that_cannot_be_are_refused(run: RunDirectory, change: dict[str, np.ndarray], message: str) -> None:
    ids, labels, points = clusterings(3)[3]
    with pytest.raises(SubflError, match=message):
        run.add_clusters(3, **{"client_ids": ids, "labels": labels, "points": points, **change})
    assert run.clusters() == {} and not (run.path / "clusters.npz").exists()


@pytest.mark.parametrize(("server_round", "kept"), [(3, []), (4, [4]), (7, [4]), (8, [4, 8])])
def test_clusters_after_the_checkpoint_are_cut_off(run: RunDirectory, server_round: int, kept: list[int]) -> None:
    given = clusterings(4, 8)
    for number in range(1, 9):
        run.append_round({"round": number})
        if number in given:
            run.add_clusters(number, *given[number])
    resumed = RunDirectory.reopen(run.path, server_round)
    assert list(resumed.clusters()) == kept and (run.path / "clusters.npz").exists() == bool(kept)
    resumed.add_clusters(9, *given[8])
    assert list(run.clusters()) == [*kept, 9]
    for number in kept:
        np.testing.assert_array_equal(run.clusters()[number].points, given[number][2])


def test_a_run_with_damaged_arrays_is_not_cut_off(run: RunDirectory) -> None:
    for number in range(1, 4):
        run.append_round({"round": number})
    for name in ("mixing.npz", "clusters.npz"):
        (run.path / name).write_bytes(b"PK")
        with pytest.raises(SubflError, match=f"{name} is not a NumPy archive"):
            RunDirectory.reopen(run.path, 1)
        (run.path / name).unlink()
        assert len(run.rounds()) == 3


def test_an_archive_of_something_else_is_named(run: RunDirectory) -> None:
    for arrays in ({"x": np.eye(2)}, {"round_0001.labels": np.zeros(3)}, {"round_one": np.eye(2)}):
        for name, read in (("mixing", run.mixing), ("clusters", run.clusters)):
            np.savez(run.path / f"{name}.npz", **arrays)
            with pytest.raises(SubflError, match=rf"{name}\.npz is not a NumPy archive of"):
                read()
    np.savez(
        run.path / "clusters.npz",
        **{"round_0002.client_ids": np.arange(2), "round_0002.labels": np.zeros(2), "round_0002.points": np.eye(3)},
    )
    with pytest.raises(SubflError, match=r"clusters\.npz, round 2: .* and \(3, 3\)"):
        run.clusters()


class Trained(Card):
    holds: ClassVar[str] = "a trained model"

    kind: Literal["model"] = "model"
    round: int


def test_client_models_come_back_with_shape_dtype_and_card(run: RunDirectory) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = {"weight": weights, "transposed": weights.T, "scalar": np.array(2, dtype=np.int64)}
    write_tensor_file(run.client_file(7), tensors, Trained(round=3))
    assert run.client_file(7) == run.path / "clients" / "0007.safetensors"
    read, card = read_tensor_file(run.client_file(7), Trained)
    assert card.round == 3 and run.client_models() == {7: run.client_file(7)}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype


def test_absent_or_damaged_files_are_named(run: RunDirectory) -> None:
    with pytest.raises(SubflError, match="0 or more, not -1"):
        run.client_file(-1)
    for name in ("summary.json", "config.yaml", "mixing.npz", "clusters.npz"):
        (run.path / name).write_text("{[")
    for read in (run.summary, run.config, run.mixing, run.clusters):
        with pytest.raises(SubflError, match=r"summary\.json|config\.yaml|(mixing|clusters)\.npz"):
            read()
    (run.path / "config.yaml").write_text("- 1\n")
    with pytest.raises(SubflError, match="mapping of settings, found list"):
        run.config()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"versions": ["torch"]}, "versions: Input should be a valid dictionary (found \"['torch']\")"),
        ({"figures": {"test.x": "<script>"}}, "figures.test.x: Input should be a valid integer (found '<script>')"),
        ({"exchanges": [{"action": "a", "bytes_up": -1}]}, "exchanges.0.bytes_up: Input should be greater than or"),
        (
            {"per_client": {"ids": [0, 1], "test_at_best_validation": [0.5], "validation_at_best_validation": []}},
            "per_client: test_at_best_validation must be a list with a value for each of the 2 ids",
        ),
    ],
)
def test_a_damaged_summary_is_one_sentence_on_its_key(run: RunDirectory, content: dict[str, Any], words: str) -> None:
    (run.path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(SubflError) as error:
        run.summary()
    assert str(error.value).startswith(f"{run.path / 'summary.json'}: {words}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"round": 1e400}', "round: Input should be a valid integer (found 'inf')"),
        (f'{{"round": {10**30}}}', "round: "),
        ('{"round": 1, "bytes_up": NaN}', "bytes_up: Input should be a valid integer (found 'nan')"),
        ('{"round": 1, "clients": {"ids": [0, 0]}}', "clients: a client id comes twice in ids"),
        (
            '{"round": 1, "clients": {"ids": [0], "test": 1}}',
            "clients: test must be a list with a value for each of th",
        ),
        ('{"round": 1, "seconds": {"round": [1]}}', "seconds.round: Input should be a valid integer (found"),
    ],
)
def test_a_damaged_round_is_one_sentence_on_its_key(run: RunDirectory, line: str, words: str) -> None:
    (run.path / "metrics.jsonl").write_text(f'{{"round": 0}}\n{line}\n')
    with pytest.raises(SubflError) as error:
        run.rounds()
    assert str(error.value).startswith(f"{run.path / 'metrics.jsonl'}, line 2: {words}")


def test_files_too_deep_to_read_are_one_sentence(run: RunDirectory) -> None:
    deep = "[" * 100_000
    (run.path / "summary.json").write_text(deep)
    (run.path / "config.yaml").write_text(deep)
    with pytest.raises(SubflError, match=r"summary\.json is not a JSON object"):
        run.summary()
    with pytest.raises(SubflError, match=r"config\.yaml is not YAML"):
        run.config()
