from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from subfl_flower.data.description import file_digests
from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.datasets import movielens
from subfl_flower.data.ratings.datasets.movielens import (
    MovieLens1MDataset,
    MovieLens10MDataset,
    MovieLens100KDataset,
    MovieLensDataset,
)
from subfl_flower.data.ratings.datasets.movielens_files import FLAGGED_GENRES, age_band
from subfl_flower.data.ratings.splits import SplitName
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError

ML100K = pytest.mark.parametrize("benchmark_root", ["ml-100k"], indirect=True)


def bias_row_rmse(root: Path) -> float:
    """Of the global mean and user and item biases, shrunk by 5 ratings each: a ridge regression on one-hot ids."""
    ratings = MovieLens100KDataset().load(root, 1234).ratings
    rows, columns = np.arange(len(ratings)), ratings.num_users + ratings.items
    shape = (len(ratings), ratings.num_users + ratings.num_items)
    ones = np.ones(len(ratings))
    hot = sp.csr_array((ones, (rows, ratings.users())), shape) + sp.csr_array((ones, (rows, columns)), shape)
    seen = ratings.roles != TEST
    fitted = Ridge(alpha=5.0, solver="lsqr", tol=1e-8).fit(hot[seen], ratings.values[seen])
    errors = np.clip(fitted.predict(hot[~seen]), *ratings.scale) - ratings.values[~seen]
    return float(np.sqrt(np.mean(errors**2)))


@ML100K
def test_the_numbers_of_ml_100k(benchmark_root: Path) -> None:
    loaded = MovieLens100KDataset().load(benchmark_root, 1234)
    ratings = loaded.ratings
    assert (ratings.num_users, ratings.num_items, len(ratings), ratings.scale) == (943, 1682, 100_000, (1.0, 5.0))
    assert [int(ratings.counts(role).sum()) for role in (0, 1, 2)] == [76_000, 4_000, 20_000]
    assert loaded.user_names == [str(number + 1) for number in range(943)]
    assert loaded.item_names == [str(number + 1) for number in range(1682)]
    assert loaded.titles is not None and loaded.titles[0] == "Toy Story (1995)" and len(loaded.titles) == 1682
    # u1.base begins with 1 1 5 and 1 2 3, u1.test with 1 6 5.
    assert ratings.values[[0, 1, 5]].tolist() == [5, 3, 5] and ratings.roles[5] == TEST != ratings.roles[0]
    assert bias_row_rmse(benchmark_root) == pytest.approx(0.955, abs=0.001)


@ML100K
def test_the_newest_of_ml_100k(benchmark_root: Path) -> None:
    """Told apart by hand: with pandas, by timestamp and then by the row in u.data."""
    columns = ["user", "item", "rating", "time"]
    table = pd.read_csv(benchmark_root / "ml-100k" / "u.data", sep="\t", names=columns)
    newest = table.sort_values("time", kind="stable").groupby("user").tail(2)
    newest["role"] = newest.groupby("user").cumcount() + 1  # 1 validates, 2 tests
    loaded = MovieLens100KDataset(split="leave_one_out", validation_fraction=0.5).load(benchmark_root, 3)
    ratings = loaded.ratings
    held_out = np.flatnonzero(ratings.roles != TRAIN)
    found = zip(ratings.users()[held_out] + 1, ratings.items[held_out] + 1, ratings.roles[held_out], strict=True)
    assert sorted(found) == sorted(newest[["user", "item", "role"]].itertuples(index=False, name=None))
    assert ratings.role_counts() == {"train": 98_114, "validation": 943, "test": 943}


def hit_rate_of_popularity(ratings: Ratings, draws: int) -> float:
    """HR@10 among 100 items that the user never rated, by counts of training ratings; ties in a random order."""
    counts = np.bincount(ratings.items[ratings.roles == TRAIN], minlength=ratings.num_items)
    generator, hits = np.random.default_rng(0), []
    for user in range(ratings.num_users):
        own = slice(ratings.offsets[user], ratings.offsets[user + 1])
        [held_out] = ratings.items[own][ratings.roles[own] == TEST]
        unrated = np.setdiff1d(np.arange(ratings.num_items), ratings.items[own])
        for _ in range(draws):
            others = counts[generator.choice(unrated, 100, replace=False)]
            above, tied = np.sum(others > counts[held_out]), np.sum(others == counts[held_out])
            hits.append(np.clip((10 - above) / (tied + 1), 0, 1))
    return float(np.mean(hits))


@ML100K
def test_popularity_hits_as_often_as_it_should(benchmark_root: Path) -> None:
    ratings = MovieLens100KDataset(split="leave_one_out").load(benchmark_root, 1).ratings
    assert hit_rate_of_popularity(ratings, draws=5) == pytest.approx(0.4045, abs=0.008)


@ML100K
def test_the_attributes_of_ml_100k(benchmark_root: Path) -> None:
    """Against the genres, occupations and counts that GroupLens' own files list."""
    loaded = MovieLens100KDataset().load(benchmark_root, 1)
    users, items, folder = loaded.user_attributes, loaded.item_attributes, benchmark_root / "ml-100k"
    assert users is not None and items is not None
    assert users.fields == ("age", "gender", "occupation") and users.sizes == (7, 2, 21)
    assert list(users.values[2]) == sorted((folder / "u.occupation").read_text().split())
    assert set(items.values[0]) == {line.split("|")[0] for line in (folder / "u.genre").read_text().split("\n") if line}
    assert (items.fields, items.sizes, len(users), len(items)) == (("genre",), (19,), 943, 1682)
    # 1|24|M|technician and 2|53|F|other; Toy Story is an animated comedy for children.
    named = np.array([value for vocabulary in users.values for value in vocabulary])
    assert [named[users.of([user]).codes].tolist() for user in (0, 1)] == [
        ["18-24", "M", "technician"], ["50-55", "F", "other"],
    ]  # fmt: skip
    assert [items.values[0][code] for code in items.of([0]).codes] == ["Animation", "Children's", "Comedy"]
    table = pd.read_csv(folder / "u.user", sep="|", header=None)
    assert np.bincount(users.codes)[7:9].tolist() == [273, 670] == table[2].value_counts().sort_index().tolist()
    bands = pd.cut(table[1], [0, 17, 24, 34, 44, 49, 55, 99]).value_counts(sort=False).tolist()
    assert np.bincount(users.codes)[[6, 0, 1, 2, 3, 4, 5]].tolist() == bands  # "under 18" sorts last
    flags = pd.read_csv(folder / "u.item", sep="|", header=None, encoding="latin-1").iloc[:, 5:].sum()
    counts = dict(zip(items.values[0], np.bincount(items.codes).tolist(), strict=True))
    assert [counts[genre] for genre in FLAGGED_GENRES] == flags.tolist()


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (1, "under 18"), (17, "under 18"), (18, "18-24"), (24, "18-24"), (25, "25-34"), (34, "25-34"), (35, "35-44"),
        (44, "35-44"), (45, "45-49"), (49, "45-49"), (50, "50-55"), (55, "50-55"), (56, "56+"), (73, "56+"),
    ],
)  # fmt: skip
def test_bands_of_ages(age: int, band: str) -> None:
    assert age_band(age) == band


def test_genres_that_are_listed(tmp_path: Path) -> None:
    films = "1::A::Drama|War\n2::B::(no genres listed)\n3::C::War\r\n4::D::Sci-Fi\n"
    write_dat(tmp_path, "ml-10M100K", "7::1::5::9\n7::2::4::8\n7::3::4.5::7\n", films.encode())
    loaded = MovieLens10MDataset(split="leave_one_out").load(tmp_path, 0)  # 4 is not rated
    found = loaded.item_attributes
    assert found is not None and found.vocabularies == {"genre": ["Drama", "War"]} and loaded.user_attributes is None
    assert found.offsets.tolist() == [0, 2, 2, 3] and found.codes.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("1::F::young::10::48067\n", r"users\.dat is damaged \(.*young.*replace it, or delete it"),
        (
            "1::F::1::10::48067\n2::F::1\n",
            r"users\.dat is damaged \(1 x line with fewer than 4 fields, first in line 2",
        ),
    ],
)
def test_a_damaged_users_file_is_named(tmp_path: Path, users: str, message: str) -> None:
    write_dat(tmp_path, "ml-1m", "1::1::5::9\n1::2::4::9\n", b"1::A::B\n2::B::C\n")
    (tmp_path / "ml-1m" / "users.dat").write_text(users)
    with pytest.raises(SubflError, match=message):
        MovieLens1MDataset().load(tmp_path, 0)


def test_flags_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_text("1\t5\t3\t880\n1\t7\t4\t881\n")
    (tmp_path / "ml-100k" / "u.item").write_text(f"5|Five|||{'|0' * 19}\n7|Seven|||{'|0' * 18}|2\n")
    with pytest.raises(
        SubflError, match=r"u\.item is damaged \(the flags of the genres of film 7 are not all 0 or 1\)"
    ):
        MovieLens100KDataset(split="random").load(tmp_path, 0)


@ML100K
def test_every_split_is_of_the_same_ratings(benchmark_root: Path) -> None:
    given = MovieLens100KDataset().load(benchmark_root, 1).ratings
    tested = {}
    for split in ("random", "time", "leave_one_out"):
        ratings = MovieLens100KDataset(split=split).load(benchmark_root, 1).ratings
        np.testing.assert_array_equal(ratings.items, given.items)
        np.testing.assert_array_equal(ratings.values, given.values)
        np.testing.assert_array_equal(ratings.offsets, given.offsets)
        assert ratings.counts(0).min() >= 1
        tested[split] = int(ratings.counts(TEST).sum())
    assert tested["random"] == 20_000 and 19_000 < tested["time"] <= 20_000 and tested["leave_one_out"] == 943


def write_dat(root: Path, folder: str, ratings: str, titles: bytes) -> None:
    (root / folder).mkdir(parents=True)
    (root / folder / "ratings.dat").write_text(ratings)
    (root / folder / "movies.dat").write_bytes(titles)


@pytest.mark.parametrize(
    ("dataset", "encoding", "values", "scale"),
    [
        (MovieLens1MDataset(), "latin-1", ["5", "3", "1"], (1.0, 5.0)),
        (MovieLens10MDataset(), "utf-8", ["4.5", "3", "0.5"], (0.5, 5.0)),
    ],
)
def test_double_colons_separate(
    tmp_path: Path, dataset: MovieLensDataset, encoding: str, values: list[str], scale: tuple[float, float]
) -> None:
    lines = [f"10::1193::{values[0]}::978300760", f"2::661::{values[1]}::978302109", f"2::1193::{values[2]}::978301968"]
    titles = "661::Élisa: a film (1995)::Drama\r\n914::Unrated (1964)::Musical\n1193::Two\x85words (1975)::Drama\n"
    write_dat(tmp_path, dataset.folder, "\n".join(lines) + "\n", titles.encode(encoding))
    read = dataset.read(tmp_path)
    assert read.users.tolist() == [10, 2, 2] and read.items.tolist() == [1193, 661, 1193]
    assert read.values.tolist() == [float(value) for value in values]
    assert read.timestamps is not None and read.timestamps.tolist() == [978300760, 978302109, 978301968]
    loaded = dataset.model_copy(update={"split": "leave_one_out", "validation_fraction": 0.0}).load(tmp_path, 0)
    assert loaded.user_names == ["2", "10"] and loaded.item_names == ["661", "1193"]
    assert loaded.titles == ["Élisa: a film (1995)", "Two\x85words (1975)"]
    assert loaded.ratings.roles.tolist() == [2, 0, 0] and loaded.ratings.scale == scale


def test_a_split_that_a_data_set_does_not_have_is_refused(tmp_path: Path) -> None:
    write_dat(tmp_path, "ml-1m", "1::1::5::9\n1::2::4::9\n", b"1::A::B\n2::B::C\n")
    with pytest.raises(SubflError, match=r"^dataset=ml1m: split=given needs a split of the source's own"):
        MovieLens1MDataset(split="given").load(tmp_path, 0)


@pytest.mark.parametrize(
    ("ratings", "titles", "message"),
    [
        ("1::1::5::9\n1::2::four::9\n", b"1::A\n", r"ratings\.dat is damaged \(.*four.*replace it, or delete it"),
        ("1::1::5::9\n1::2\n", b"1::A\n", r"ratings\.dat is damaged"),
        ("", b"1::A\n", r"ratings\.dat is damaged"),
        ("1::1::5::9\n1::2::7::9\n", b"1::A::B\n", r"ratings\.dat: 1 x rating off the scale 1\.\.5, first in row 2"),
        (
            "1::1::5::9\n",
            b"1::A::B\n\n2::C\n",
            r"movies\.dat is damaged \(1 x line with fewer than 3 fields, first in line 3\)",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, ratings: str, titles: bytes, message: str) -> None:
    write_dat(tmp_path, "ml-1m", ratings, titles)
    with pytest.raises(SubflError, match=message):
        MovieLens1MDataset().load(tmp_path, 0)


def served(site: Path, archive: str, members: dict[str, str]) -> None:
    site.mkdir()
    with zipfile.ZipFile(site / archive, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


@pytest.mark.parametrize("split", ["given", "random"])
def test_what_is_absent_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: SplitName) -> None:
    one, two = "1\t5\t3\t880\n1\t7\t4\t881\n", "2\t5\t5\t882\n"
    films = f"5|Five|||{'|0' * 19}\n7|Seven|||{'|0' * 19}\n"
    files = {"u1.base": one, "u1.test": two, "u.data": one + two, "u.item": films, "u.user": "2|24|M|writer|85711\n"}
    members = files | {"README": "words"}
    served(tmp_path / "site", "ml-100k.zip", {f"ml-100k/{name}": content for name, content in members.items()})
    monkeypatch.setattr(movielens, "_SITE", (tmp_path / "site").as_uri())
    dataset = MovieLens100KDataset(split=split)
    first = file_digests(dataset.files(tmp_path / "root"))
    kept = sorted(path.name for path in (tmp_path / "root" / "ml-100k").iterdir() if not path.name.startswith("."))
    assert kept == sorted(["u.item", "u.user", *(["u1.base", "u1.test"] if split == "given" else ["u.data"])])
    (tmp_path / "site" / "ml-100k.zip").unlink()
    assert file_digests(dataset.files(tmp_path / "root")) == first
    read = dataset.read(tmp_path / "root")
    assert read.items.tolist() == [5, 7, 5] and read.item_titles == {"5": "Five", "7": "Seven"}
    assert (None if read.roles is None else read.roles.tolist()) == ([0, 0, 2] if split == "given" else None)


def test_the_users_file_alone_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "unzipped", lambda *_: pytest.fail("it was downloaded"))
    write_dat(tmp_path, "ml-1m", "1::1::5::9\n1::2::4::8\n", b"1::A::War\n2::B::War\n")
    dataset = MovieLens1MDataset(split="leave_one_out")
    without = file_digests(dataset.files(tmp_path))
    with pytest.warns(UserWarning, match=r"users\.dat does not exist; dataset=ml1m has no attributes of users$"):
        loaded = dataset.load(tmp_path, 0)
    assert loaded.user_attributes is None and loaded.item_attributes is not None
    (tmp_path / "ml-1m" / "users.dat").write_text("1::F::1::10::48067\n")
    assert file_digests(dataset.files(tmp_path)) != without
    found = dataset.load(tmp_path, 0).user_attributes
    assert found is not None
    assert found.vocabularies == {"age": ["under 18"], "gender": ["F"], "occupation": ["10"]}


def test_a_download_that_fails_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "_SITE", (tmp_path / "nowhere").as_uri())
    with pytest.raises(SubflError, match=r"^dataset=ml10m: ratings\.dat, movies\.dat not found and not downloaded"):
        MovieLens10MDataset().load(tmp_path / "root", 0)
    served(tmp_path / "site", "ml-10m.zip", {"ml-10M100K/ratings.dat": "1::1::5::9\n"})
    monkeypatch.setattr(movielens, "_SITE", (tmp_path / "site").as_uri())
    with pytest.raises(SubflError, match=r"movies\.dat.* not downloaded .*put the missing files into .*ml-10M100K"):
        MovieLens10MDataset().load(tmp_path / "root", 0)
    assert not (tmp_path / "root" / "ml-10M100K" / "ratings.dat").exists()
