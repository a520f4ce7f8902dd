"""The MovieLens data sets of GroupLens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.attributes import RawAttributes
from subfl_flower.data.ratings.datasets.downloads import unzipped
from subfl_flower.data.ratings.datasets.movielens_files import (
    FLAGGED_GENRES,
    flagged_genres,
    listed_genres,
    read_lines,
    titles_of,
    users_of,
)
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.splits import SplitName
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.raw_files import damaged, present_or_downloaded
from subfl_flower.data.source import Protocol
from subfl_flower.errors import SubflError

_SITE = "https://files.grouplens.org/datasets/movielens"
_ML100K_RATINGS = 100_000


class MovieLensDataset(RatingDatasetSettings):
    """Ratings of films, with the films' genres and, where GroupLens has them, users' age, gender and occupation.

    Source: Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015. Files in
    GroupLens' own layout, `<root>/<folder>/`, downloaded from GroupLens where they are absent; their licence forbids
    passing them on. Where the file of users alone is absent, users have no attributes.
    """

    public = True

    folder: ClassVar[str]
    archive: ClassVar[str]
    films_file: ClassVar[str]
    film_columns: ClassVar[int]
    users_file: ClassVar[str | None] = None
    user_columns: ClassVar[Mapping[str, int]] = {}
    separator: ClassVar[str]
    people_separator: ClassVar[str] = "::"
    encoding: ClassVar[str]
    rating_range: ClassVar[tuple[float, float]]

    split: SplitName = "random"
    protocol: Protocol = Protocol(rounds=400, local_epochs=1)

    def rating_files(self, folder: Path) -> list[str]:
        """The names of the files that hold the ratings: by default `ratings.dat`.

        Args:
            folder: folder of the files; a choice between files may depend on which are present.
        """
        return ["ratings.dat"]

    def tested(self, rows: list[int], source: str) -> np.ndarray | None:
        """Mask of the test ratings of the source's split, bool `[ratings]`; None where it has none.

        Args:
            rows: number of ratings in each of the files.
            source: the files, for an error.

        Raises:
            SubflError: the files cannot be split so.
        """
        return None

    def genres(self, films: list[list[str]], path: Path) -> RawAttributes:
        """The genres of films; `films` holds the fields of each line."""
        return listed_genres(films)

    def read(self, root: Path) -> RawRatings:
        """Read GroupLens' files; download them where absent.

        Raises:
            SubflError: files are missing and cannot be downloaded, or a file is damaged.
        """
        *paths, films_path = self._files(root)
        parts = [self._read_ratings(path) for path in paths]
        users, items, values, timestamps = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        source = " and ".join(map(str, paths))
        tested = self.tested([len(part[0]) for part in parts], source)
        films = read_lines(films_path, self.people_separator, self.film_columns, self.encoding)
        return RawRatings(
            source=source,
            users=users,
            items=items,
            values=values,
            timestamps=timestamps,
            per_second=1,
            roles=None if tested is None else np.where(tested, TEST, TRAIN).astype(np.int8),
            scale=self.rating_range,
            item_titles=titles_of(films),
            user_attributes=self._read_users(root),
            item_attributes=self.genres(films, films_path),
        )

    def files(self, root: Path) -> list[Path]:
        """GroupLens' files of ratings, of films and, if present, of users; downloaded where absent.

        Raises:
            SubflError: files are missing and cannot be downloaded.
        """
        files, of_users = self._files(root), self._users_path(root)
        return [*files, of_users] if of_users and of_users.is_file() else files

    def _files(self, root: Path) -> list[Path]:
        """The files of ratings and, last, the one of films. A download includes the file of users."""
        folder, needed = root / self.folder, [*self.rating_files(root / self.folder), self.films_file]
        there = all((folder / name).is_file() for name in needed)
        names = needed if there or self.users_file is None else [*needed, self.users_file]

        def download(temporary: Path) -> Path:
            url = f"{_SITE}/{self.archive}"
            return unzipped(url, temporary, [f"{self.folder}/{name}" for name in names]) / self.folder

        return present_or_downloaded(folder, names, download, self.name)[: len(needed)]

    def _users_path(self, root: Path) -> Path | None:
        return None if self.users_file is None else root / self.folder / self.users_file

    def _read_users(self, root: Path) -> RawAttributes:
        """Attributes of users; empty where the file is absent."""
        path = self._users_path(root)
        if path is None:
            return {}
        if not path.is_file():
            warnings.warn(f"{path} does not exist; dataset={self.name} has no attributes of users", stacklevel=2)
            return {}
        columns = 1 + max(self.user_columns.values())
        return users_of(read_lines(path, self.people_separator, columns, self.encoding), self.user_columns, path)

    def _read_ratings(self, path: Path) -> tuple[np.ndarray, ...]:
        """Users, items, values and timestamps."""
        import pandas as pd  # slow to import, and most runs open a cache

        # A separator of two characters would need pandas' slow parser. Split by one, every other column is empty.
        step = len(self.separator)
        types = {0: np.int64, step: np.int64, 2 * step: np.float64, 3 * step: np.int64}
        try:
            table = pd.read_csv(path, sep=self.separator[0], header=None, usecols=list(types), dtype=types)
        except (OSError, ValueError, OverflowError) as error:
            raise damaged(path, error) from error
        return tuple(table[column].to_numpy() for column in types)


class MovieLens100KDataset(MovieLensDataset):
    """ML-100K: 943 users, 1,682 films, 100,000 ratings 1..5. User and item numbers are GroupLens' ids less one.

    `split=given` is one of GroupLens' five folds u1 to u5 (80,000 and 20,000 ratings each), whose test ratings are
    disjoint. GC-MC uses the first (van den Berg, Kipf, Welling, 2017, Section 5). Fold i tests the rows
    20,000 (i - 1) + 1 to 20,000 i of `u.data`, as GroupLens' script `mku.sh` cuts it.

    Attributes:
        fold: number of the fold, 1 to 5; only `split=given` has folds.
    """

    folder: ClassVar[str] = "ml-100k"
    archive: ClassVar[str] = "ml-100k.zip"
    films_file: ClassVar[str] = "u.item"
    film_columns: ClassVar[int] = 5 + len(FLAGGED_GENRES)
    users_file: ClassVar[str | None] = "u.user"
    user_columns: ClassVar[Mapping[str, int]] = {"age": 1, "gender": 2, "occupation": 3}
    separator: ClassVar[str] = "\t"
    people_separator: ClassVar[str] = "|"
    encoding: ClassVar[str] = "latin-1"
    rating_range: ClassVar[tuple[float, float]] = (1.0, 5.0)

    name: Literal["ml100k"] = "ml100k"
    protocol: Protocol = Protocol(rounds=300, local_epochs=1)
    split: SplitName = "given"
    fold: int = Field(default=1, ge=1, le=5)

    @field_validator("fold")
    @classmethod
    def _of_the_given_split(cls, value: int, others: ValidationInfo) -> int:
        split = others.data.get("split", "given")
        if value != 1 and split != "given":
            raise ValueError(f"only split=given has folds, and the split is {split}; leave the fold out")
        return value

    def rating_files(self, folder: Path) -> list[str]:
        """`u.data`, or with `split=given` the fold's two files, such as `u1.base` and `u1.test`.

        They hold the same ratings. Where the fold's files are absent and `u.data` is there, the fold is cut from it.
        """
        own = [f"u{self.fold}.base", f"u{self.fold}.test"]
        own_are_there = all((folder / name).is_file() for name in own)
        return own if self.split == "given" and (own_are_there or not (folder / "u.data").is_file()) else ["u.data"]

    def tested(self, rows: list[int], source: str) -> np.ndarray | None:
        """Mask of the fold's test ratings with `split=given`: its second file, or its fifth of `u.data`.

        Bool `[ratings]`.

        Raises:
            SubflError: `u.data` does not hold 100,000 ratings, and cannot be cut into folds.
        """
        if self.split != "given":
            return None
        if len(rows) == 2:
            return np.repeat([False, True], rows)
        if rows != [_ML100K_RATINGS]:
            raise SubflError(
                f"{source} holds {rows[0]:,} rating(s); a fold can be cut from GroupLens' {_ML100K_RATINGS:,} alone: "
                f"replace the file, or put u{self.fold}.base and u{self.fold}.test beside it"
            )
        return np.arange(_ML100K_RATINGS) // (_ML100K_RATINGS // 5) == self.fold - 1

    def genres(self, films: list[list[str]], path: Path) -> RawAttributes:
        """The genres from the films' flags.

        Raises:
            SubflError: a flag is neither 0 nor 1.
        """
        return flagged_genres(films, path)


class MovieLens1MDataset(MovieLensDataset):
    """ML-1M: 6,040 users, 3,706 rated films, 1,000,209 ratings 1..5. Occupations are GroupLens' codes 0 to 20."""

    folder: ClassVar[str] = "ml-1m"
    archive: ClassVar[str] = "ml-1m.zip"
    films_file: ClassVar[str] = "movies.dat"
    film_columns: ClassVar[int] = 3
    users_file: ClassVar[str | None] = "users.dat"
    user_columns: ClassVar[Mapping[str, int]] = {"age": 2, "gender": 1, "occupation": 3}
    separator: ClassVar[str] = "::"
    encoding: ClassVar[str] = "latin-1"
    rating_range: ClassVar[tuple[float, float]] = (1.0, 5.0)

    name: Literal["ml1m"] = "ml1m"


class MovieLens10MDataset(MovieLensDataset):
    """ML-10M: 69,878 users, 10,677 rated films, 10,000,054 ratings 0.5..5 in steps of a half.

    It has no attributes of users.
    """

    folder: ClassVar[str] = "ml-10M100K"
    archive: ClassVar[str] = "ml-10m.zip"
    films_file: ClassVar[str] = "movies.dat"
    film_columns: ClassVar[int] = 3
    separator: ClassVar[str] = "::"
    encoding: ClassVar[str] = "utf-8"
    rating_range: ClassVar[tuple[float, float]] = (0.5, 5.0)

    name: Literal["ml10m"] = "ml10m"
