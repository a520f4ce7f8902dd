"""Settings of how a server aggregates what clients send."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Rule = Literal["mean", "median", "trimmed_mean", "krum"]
"""Name of a rule, see `AggregationSettings`."""


class AggregationSettings(BaseModel):
    """Protection of averages against a few clients who send what they like.

    Attributes:
        rule: ``mean``, a method's own weighted average; ``median`` and ``trimmed_mean``, coordinate by coordinate with
            the method's weights; ``krum``, the method's average without the `hostile` share of the updates that are
            farthest from the others (Multi-Krum).
        norm_bound: the L2 norm that a client's update may have, as a multiple of the median norm of the round's
            updates; a longer one is scaled back to the median norm. null: any norm.
        row_bound: the same of a user of a recommender, whose gradients are averaged: the norm of its longest item row
            and of what it sends of shared parameters, as a multiple of the largest median of a round so far: gradients
            of trained users are small. null: any norm.
        size_bound: the examples, nodes and edges that a client may state where the server does not have the data, as a
            multiple of the median over clients; more count as so many. null: any number.
        hostile: share of a round's clients that may be hostile; at least one client is assumed to be. With
            ``trimmed_mean`` so many are left out at either end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rule: Rule = "mean"
    norm_bound: float | None = Field(default=3.0, ge=1)
    row_bound: float | None = Field(default=30.0, ge=1)
    size_bound: float | None = Field(default=10.0, ge=1)
    hostile: float = Field(default=0.2, gt=0, lt=0.5)

    def num_hostile(self, num_clients: int) -> int:
        """Clients that are assumed to be hostile among some."""
        return max(1, int(self.hostile * num_clients))
