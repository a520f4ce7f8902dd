"""The one kind of error that a user is meant to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SubflError(Exception):
    """An error that the user can mend: one sentence that states the problem, its place, and the allowed values.

    The command line prints the sentence without a stack trace and exits with code 2.
    """


class RunFailure(SubflError):
    """A valid run failed while running; the command line exits with code 1."""


class UnusableFolder(SubflError):
    """A folder in which a run cannot be trained.

    Args:
        folder: the folder.
        reason: the end of the sentence about it.
    """

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder} {reason}; choose another folder")


@contextmanager
def folder_chosen_by(argument: str) -> Iterator[None]:
    """Name the argument by which a folder is chosen in the sentence about one that cannot be used.

    Raises:
        SubflError: see `UnusableFolder`.
    """
    try:
        yield
    except UnusableFolder as error:
        raise SubflError(f"{error} ({argument}=...)") from error
