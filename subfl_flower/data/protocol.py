"""Training lengths of the papers by data set."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Protocol(BaseModel):
    """Training length of the paper on a data set; it does not affect the data.

    Attributes:
        rounds: communication rounds.
        local_epochs: epochs that each client trains in a round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)
