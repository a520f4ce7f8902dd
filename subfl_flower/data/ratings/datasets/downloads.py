"""Downloads of public rating data sets."""

from __future__ import annotations

import shutil
import urllib.request
import zipfile
from pathlib import Path


def fetched(url: str, path: Path) -> Path:
    """Download one file; return `path`.

    Raises:
        OSError: the network, the server or the disk refuses.
    """
    with urllib.request.urlopen(url) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
    return path


def unzipped(url: str, folder: Path, names: list[str]) -> Path:
    """Download a zip archive into an empty folder and unpack some of its members; return `folder`.

    Raises:
        OSError: the network, the server or the disk refuses.
        zipfile.BadZipFile: the download is no whole zip archive.
        KeyError: it does not hold one of `names`.
    """
    with zipfile.ZipFile(fetched(url, folder / "archive.zip")) as archive:
        for name in names:
            archive.extract(name, folder)
    return folder
