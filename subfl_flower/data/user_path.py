"""Paths of a user's files, independent of the folder in which a later command is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from subfl_flower.data.in_memory import is_in_memory


def _absolute(path: Path) -> Path:
    if is_in_memory(path):
        return path
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise ValueError(f"{path}: {error}") from None


UserPath = Annotated[Path, AfterValidator(_absolute)]
"""A path that may begin with `~` and is relative to the folder where the command starts; stored as absolute.

It may be that of an object in memory, which is stored as it is.
"""
