"""Cards of models that no run has made."""

from __future__ import annotations

from typing import Any

from subfl_flower.models.settings import ModelSettings
from subfl_flower.subgraphs.models.exported import ModelCard
from subfl_flower.tasks.choices import NodeClassification


def toy_card(**changes: Any) -> ModelCard:
    """The card of a small GCN for nodes, of client 7 of a FED-PUB run, with changes."""
    facts: dict[str, Any] = {
        "model": ModelSettings(name="gcn", hidden=4, layers=2),
        "task": NodeClassification(name="node_classification"),
        **{"num_features": 3, "num_classes": 2, "dataset": "toy", "client": 7, "method": "fedpub", "run": "r"},
    }
    return ModelCard(**(facts | changes))
