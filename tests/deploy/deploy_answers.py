"""What a command of `subfl deploy` answered."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Exit code, and the lines that were printed."""

    code: int
    out: list[str]
    err: list[str]
