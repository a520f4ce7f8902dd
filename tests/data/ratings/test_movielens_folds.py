"""The five folds of ML-100K."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from subfl_flower.composition import composed_config
from subfl_flower.data.description import file_digests
from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.datasets import movielens
from subfl_flower.data.ratings.datasets.movielens import MovieLens100KDataset
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.errors import SubflError

ML100K = pytest.mark.parametrize("benchmark_root", ["ml-100k"], indirect=True)


def folder_of(root: Path, benchmark: Path, *names: str) -> Path:
    """A data root that holds some of ML-100K's files alone."""
    (root / "ml-100k").mkdir(parents=True)
    for name in (*names, "u.item", "u.user"):
        shutil.copy(benchmark / "ml-100k" / name, root / "ml-100k" / name)
    return root


def rated(raw: RawRatings, tests: bool) -> set[tuple[int, ...]]:
    assert raw.roles is not None
    columns = [
        np.asarray(column)[(raw.roles == TEST) == tests]
        for column in (raw.users, raw.items, raw.values, raw.timestamps)
    ]
    return set(zip(*(column.astype(int).tolist() for column in columns), strict=True))


@ML100K
def test_a_fold_that_is_cut_from_all_ratings_is_group_lens(benchmark_root: Path, tmp_path: Path) -> None:
    """Row by row against GroupLens' own u1.base and u1.test."""
    alone = folder_of(tmp_path / "alone", benchmark_root, "u.data")
    cut = MovieLens100KDataset().read(alone)
    assert str(cut.source) == str(alone / "ml-100k" / "u.data")
    for tests, name in ((False, "u1.base"), (True, "u1.test")):
        lines = (benchmark_root / "ml-100k" / name).read_text().splitlines()
        assert rated(cut, tests) == {tuple(map(int, line.split("\t"))) for line in lines} and len(lines) > 19_999
    of_files = MovieLens100KDataset().load(folder_of(tmp_path / "u1", benchmark_root, "u1.base", "u1.test"), 7)
    found = MovieLens100KDataset().load(alone, 7)
    np.testing.assert_array_equal(found.ratings.roles, of_files.ratings.roles)
    np.testing.assert_array_equal(found.ratings.items, of_files.ratings.items)


@ML100K
def test_folds_test_every_rating_once(benchmark_root: Path) -> None:
    rows = [tuple(map(int, line.split("\t"))) for line in (benchmark_root / "ml-100k" / "u.data").open()]
    tested = []
    for fold in range(1, 6):
        raw = MovieLens100KDataset(fold=fold).read(benchmark_root)  # u1 from its files, the others from u.data
        tested.append(rated(raw, True))
        assert tested[-1] == set(rows[20_000 * (fold - 1) : 20_000 * fold])
        assert rated(raw, False) == set(rows) - tested[-1]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 100_000
    roles = [MovieLens100KDataset(fold=fold).load(benchmark_root, 1).ratings.role_counts() for fold in (1, 5)]
    assert roles == [{"train": 76_000, "validation": 4_000, "test": 20_000}] * 2


FILMS = f"5|Five|||{'|0' * 19}\n7|Seven|||{'|0' * 19}\n"
LINES = "1\t5\t3\t880\n1\t7\t4\t881\n", "2\t5\t5\t882\n"


def test_a_folds_own_files_come_first_and_shape_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "unzipped", lambda *_: pytest.fail("it was downloaded"))
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    for name, content in {"u3.base": LINES[0], "u3.test": LINES[1], "u.data": "9\t5\t1\t1\n", "u.item": FILMS}.items():
        (folder / name).write_text(content)
    (folder / "u.user").write_text("1|24|M|writer|85711\n")
    third = MovieLens100KDataset(fold=3)
    read, digest = third.read(tmp_path), file_digests(third.files(tmp_path))
    assert read.users.tolist() == [1, 1, 2] and read.roles is not None and read.roles.tolist() == [TRAIN, TRAIN, TEST]
    (folder / "u.data").write_text("9\t5\t2\t1\n")
    assert file_digests(third.files(tmp_path)) == digest
    (folder / "u3.test").write_text("2\t5\t4\t882\n")
    assert file_digests(third.files(tmp_path)) != digest
    message = r"u\.data holds 1 rating\(s\); a fold can be cut from GroupLens' 100,000 alone: .* u2\.base and u2\.test"
    with pytest.raises(SubflError, match=message):
        MovieLens100KDataset(fold=2).read(tmp_path)
    (folder / "u3.base").unlink()
    with pytest.raises(SubflError, match=message.replace("u2", "u3")):
        third.read(tmp_path)


def test_the_files_of_a_fold_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"u4.base": LINES[0], "u4.test": LINES[1], "u.item": FILMS, "u.user": "2|24|M|writer|85711\n"}

    def unzipped(_url: str, folder: Path, names: list[str]) -> Path:
        assert sorted(names) == sorted(f"ml-100k/{name}" for name in members)
        (folder / "ml-100k").mkdir()
        for name in names:
            (folder / name).write_text(members[Path(name).name])
        return folder

    monkeypatch.setattr(movielens, "unzipped", unzipped)
    read = MovieLens100KDataset(fold=4).read(tmp_path / "root")
    assert read.roles is not None and read.users[read.roles == TEST].tolist() == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 0}, "greater than or equal to 1"),
        ({"fold": 6}, "less than or equal to 5"),
        ({"fold": 2, "split": "time"}, "only split=given has folds, and the split is time; leave the fold out"),
    ],
)
def test_a_fold_that_there_is_not_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovieLens100KDataset.model_validate(settings)
    overrides = [f"dataset.{key}={value}" for key, value in settings.items()]
    with pytest.raises(SubflError, match=rf"^dataset\.fold: .*{message}"):
        composed_config(["method=fedgnn", "dataset=ml100k", *overrides])
    assert MovieLens100KDataset(fold=1, split="time").fold == 1
