"""Tables, figures and models of a run, for loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """Content of a run besides the numbers of its rounds and its summary.

    Attributes:
        clients: columns by name, a line a client: `client` (its id), test and validation metric at the best round
            (None where unknown), and its bytes up and down over all rounds.
        figures: PNG files by name, such as `convergence`.
        models: folder of the clients' best models; None where the server has none, as in a deployment.
    """

    clients: Mapping[str, Sequence[float | int | None]]
    figures: Mapping[str, Path]
    models: Path | None

    @property
    def lines(self) -> list[tuple[float | int | None, ...]]:
        """The table of clients by line."""
        return list(zip(*self.clients.values(), strict=True))
