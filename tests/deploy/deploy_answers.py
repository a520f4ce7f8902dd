"""Answers of a command of `subfl deploy`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Exit code, and the lines that were printed."""

    code: int
    out: list[str]
    err: list[str]
