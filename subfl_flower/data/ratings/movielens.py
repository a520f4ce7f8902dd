"""The MovieLens data sets of GroupLens."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from subfl_flower.data.protocol import Protocol
from subfl_flower.data.ratings.downloads import unzipped
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.splits import SplitName
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.raw_files import fingerprint, present_or_downloaded
from subfl_flower.errors import SubflError

_SITE = "https://files.grouplens.org/datasets/movielens"


class MovieLensDataset(RatingDatasetSettings):
    """Ratings of films.

    Source: Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015. Files in
    GroupLens' own layout, `<root>/<folder>/`, downloaded from GroupLens where they are absent; their licence forbids
    passing them on.
    """

    folder: ClassVar[str]
    archive: ClassVar[str]
    titles_file: ClassVar[str]
    separator: ClassVar[str]
    title_separator: ClassVar[str]
    encoding: ClassVar[str]
    rating_range: ClassVar[tuple[float, float]]

    protocol: Protocol = Protocol(rounds=400, local_epochs=1)

    @abstractmethod
    def rating_files(self) -> list[str]:
        """The names of the files that hold the ratings; the last one those that test, where there are two."""

    def read(self, root: Path) -> RawRatings:
        """Read GroupLens' files; downloads them where absent.

        Raises:
            SubflError: files are missing and cannot be downloaded, or a file is damaged.
        """
        *paths, titles = self._files(root)
        parts = [self._read_ratings(path) for path in paths]
        users, items, values, timestamps = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        test = np.repeat([False, True], [len(part[0]) for part in parts]) if len(parts) == 2 else None
        return RawRatings(
            source=" and ".join(map(str, paths)),
            users=users,
            items=items,
            values=values,
            timestamps=timestamps,
            test=test,
            scale=self.rating_range,
            item_titles=self._read_titles(titles),
        )

    def raw_fingerprint(self, root: Path) -> str:
        """A digest of GroupLens' files; downloads them where absent.

        Raises:
            SubflError: files are missing and cannot be downloaded.
        """
        return fingerprint(self._files(root))

    def _files(self, root: Path) -> list[Path]:
        """The files of ratings and, last, the one of titles."""
        names = [*self.rating_files(), self.titles_file]

        def download(temporary: Path) -> Path:
            url = f"{_SITE}/{self.archive}"
            return unzipped(url, temporary, [f"{self.folder}/{name}" for name in names]) / self.folder

        return present_or_downloaded(root / self.folder, names, download, self.name)

    def _read_ratings(self, path: Path) -> tuple[np.ndarray, ...]:
        """Users, items, values and timestamps."""
        import pandas as pd  # slow to import, and most runs open a cache

        # A separator of two characters would need pandas' slow parser: read by one, every other column is empty.
        step = len(self.separator)
        types = {0: np.int64, step: np.int64, 2 * step: np.float64, 3 * step: np.int64}
        try:
            table = pd.read_csv(path, sep=self.separator[0], header=None, usecols=list(types), dtype=types)
        except (OSError, ValueError, OverflowError) as error:
            raise _damaged(path, error) from error
        return tuple(table[column].to_numpy() for column in types)

    def _read_titles(self, path: Path) -> dict[str, str]:
        """The title of each film's id."""
        try:
            lines = path.read_text(self.encoding).split("\n")
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        fields = [line.rstrip("\r").split(self.title_separator) for line in lines if line.strip()]
        short = [number for number, row in enumerate(fields, 1) if len(row) < 2]
        if short:
            raise _damaged(path, ValueError(f"{len(short)} x line without a title, first in line {short[0]}"))
        return {row[0]: row[1] for row in fields}


def _damaged(path: Path, error: Exception) -> SubflError:
    return SubflError(f"{path} is damaged ({error}); replace it, or delete it to download it again")


class MovieLens100KDataset(MovieLensDataset):
    """ML-100K: 943 users, 1,682 films, 100,000 ratings 1..5. User and item numbers are GroupLens' ids less one.

    `split=given` is GroupLens' u1 (80,000 and 20,000 ratings), which GC-MC uses as well (van den Berg, Kipf, Welling,
    2017, Section 5).
    """

    folder: ClassVar[str] = "ml-100k"
    archive: ClassVar[str] = "ml-100k.zip"
    titles_file: ClassVar[str] = "u.item"
    separator: ClassVar[str] = "\t"
    title_separator: ClassVar[str] = "|"
    encoding: ClassVar[str] = "latin-1"
    rating_range: ClassVar[tuple[float, float]] = (1.0, 5.0)

    name: Literal["ml100k"] = "ml100k"
    protocol: Protocol = Protocol(rounds=300, local_epochs=1)
    split: SplitName = "given"

    def rating_files(self) -> list[str]:
        """`u1.base` and `u1.test` with `split=given`, or else `u.data`, which holds the same ratings."""
        return ["u1.base", "u1.test"] if self.split == "given" else ["u.data"]


class MovieLens1MDataset(MovieLensDataset):
    """ML-1M: 6,040 users, 3,706 rated films, 1,000,209 ratings 1..5."""

    folder: ClassVar[str] = "ml-1m"
    archive: ClassVar[str] = "ml-1m.zip"
    titles_file: ClassVar[str] = "movies.dat"
    separator: ClassVar[str] = "::"
    title_separator: ClassVar[str] = "::"
    encoding: ClassVar[str] = "latin-1"
    rating_range: ClassVar[tuple[float, float]] = (1.0, 5.0)

    name: Literal["ml1m"] = "ml1m"

    def rating_files(self) -> list[str]:
        """`ratings.dat`."""
        return ["ratings.dat"]


class MovieLens10MDataset(MovieLensDataset):
    """ML-10M: 69,878 users, 10,677 rated films, 10,000,054 ratings 0.5..5 in steps of a half."""

    folder: ClassVar[str] = "ml-10M100K"
    archive: ClassVar[str] = "ml-10m.zip"
    titles_file: ClassVar[str] = "movies.dat"
    separator: ClassVar[str] = "::"
    title_separator: ClassVar[str] = "::"
    encoding: ClassVar[str] = "utf-8"
    rating_range: ClassVar[tuple[float, float]] = (0.5, 5.0)

    name: Literal["ml10m"] = "ml10m"

    def rating_files(self) -> list[str]:
        """`ratings.dat`."""
        return ["ratings.dat"]
