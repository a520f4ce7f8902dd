"""Raw files of public benchmarks: found under the data root, or downloaded into it."""

from __future__ import annotations

import contextlib
import io
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from subfl_flower.errors import SubflError

CONNECT_SECONDS = 30.0
"""Seconds that a download waits for a silent network."""


def damaged(path: Path, error: Exception) -> SubflError:
    """The error of a public file that is not what it should be."""
    named = f"{type(error).__name__}: " if not isinstance(error, OSError | ValueError | KeyError) else ""
    return SubflError(f"{path} is damaged ({named}{error}); replace it, or delete it to download it again")


def present_or_downloaded(folder: Path, names: list[str], download: Callable[[Path], Path], dataset: str) -> list[Path]:
    """The paths of `names` in `folder`, downloaded first where any is absent.

    Existing files are never replaced, and a failed download leaves no file: files arrive in a temporary folder and
    are moved when all are whole.

    Args:
        folder: folder of the raw files.
        names: the files that are needed.
        download: given an empty folder, downloads into it and returns the folder that then holds `names`.
        dataset: the data set's name, for the error.

    Raises:
        SubflError: files are missing and could not be downloaded; names them and their folder.
    """
    paths = [folder / name for name in names]
    if all(path.is_file() for path in paths):
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            if any(not path.is_file() for path in paths):
                _download_into(folder, paths, download)
    except Exception as error:
        missing = [path.name for path in paths if not path.is_file()]
        raise SubflError(
            f"dataset={dataset}: {', '.join(missing)} not found and not downloaded "
            f"({_first_line(error)}); put the missing files into {folder}"
        ) from error
    return paths


def _download_into(folder: Path, paths: list[Path], download: Callable[[Path], Path]) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary, _quiet_network():
        source = download(Path(temporary))
        absent = [path.name for path in paths if not (source / path.name).is_file()]
        if absent:
            raise FileNotFoundError(f"the download did not bring {', '.join(absent)}")
        for path in paths:
            if not path.is_file():
                (source / path.name).replace(path)


@contextlib.contextmanager
def _quiet_network() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
