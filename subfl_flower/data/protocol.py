"""How long the papers train on a data set."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Protocol(BaseModel):
    """How long the paper trains on a data set; it does not shape the data.

    Attributes:
        rounds: communication rounds.
        local_epochs: epochs that each client trains in a round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)
