"""The knobs of models and optimisers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSettings(BaseModel):
    """A GCN: `layers` graph convolutions of width `hidden`, ReLU and dropout after each, a linear classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["gcn"]
    hidden: int = Field(default=128, ge=1)
    layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)


class OptimizerSettings(BaseModel):
    """Adam (Kingma and Ba, 2015). `decoupled` decays weights beside the gradient step (AdamW) instead of inside it.

    The difference matters even at 1e-6: inside the gradient, Adam rescales the decay of a weight without any other
    gradient (the row of a feature that a client never sees) to whole steps of the learning rate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["adam"]
    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=1e-6, ge=0)
    decoupled: bool = False
