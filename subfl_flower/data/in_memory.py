"""Objects of a program in the place of files: a graph or tables that a user's Python code holds.

A setting that takes a file takes such an object by a path like ``memory:Data-3fa9c1d2e4b5a697``: its kind, and the
first 16 hexadecimal digits of a sha256 of its content. Several tables are a folder,
``memory:nodes+edges-1b0c6f3a9d2e8471``. Readers take the object in the place of the file's content; all checks and all
cleaning after that are the same. The path alone is enough for whoever opens data that are prepared already, such as
another process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from subfl_flower.errors import SubflError

_SCHEME = "memory:"
_DIGITS = 16
_held: ContextVar[Mapping[Path, Any]] = ContextVar("objects in memory", default=MappingProxyType({}))


@contextmanager
def held(objects: Mapping[Path, Any]) -> Iterator[None]:
    """Make objects available to readers inside the block.

    Args:
        objects: by their paths: a PyG `Data`, or a table's `ParquetColumns`.
    """
    token = _held.set({**_held.get(), **objects})
    try:
        yield
    finally:
        _held.reset(token)


def path_in_memory(names: Sequence[str], digest: str) -> Path:
    """The path of an object, or of a folder of several.

    Args:
        names: name of the kind of one object, or names of the tables of a folder; letters and `_` only.
        digest: hexadecimal digits of a fingerprint of the content.
    """
    return Path(f"{_SCHEME}{'+'.join(names)}-{digest[:_DIGITS]}")


def is_in_memory(path: Path) -> bool:
    """True for the path of an object in memory, whether or not this process has the object."""
    return str(path).startswith(_SCHEME)


def object_at(path: Path) -> Any:
    """The object at a path.

    Raises:
        SubflError: this process does not have it.
    """
    try:
        return _held.get()[path]
    except KeyError:
        raise SubflError(
            f"{path}: these data were in the memory of a program, and no prepared copy of them is left in data.cache; "
            "give them again, in Python by load_run(RUN, data=...)"
        ) from None


def digest_in_memory(path: Path) -> str:
    """The fingerprint in the path of an object, or of a table in a folder."""
    return str(path).partition("/")[0].rpartition("-")[2]


def tables_in_memory(path: Path) -> dict[str, Path]:
    """The path of each table of a folder in memory, by name; empty for the path of one object."""
    names = str(path).removeprefix(_SCHEME).rpartition("-")[0].split("+")
    return {name: path / name for name in names} if len(names) > 1 else {}
