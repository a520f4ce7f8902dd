"""The kinds of data that clients hold.

A configuration's data set, partition, task, model and client family are of one kind; `registry.validate` sees to that.
"""

from __future__ import annotations

from subfl_flower.config import Config
from subfl_flower.runtime.graph_kind import Graphs
from subfl_flower.runtime.kind import Kind
from subfl_flower.runtime.ratings_kind import RatingsOfUsers

KINDS: dict[str, Kind] = {"graph": Graphs(), "ratings": RatingsOfUsers()}


def kind_of(config: Config) -> Kind:
    """The kind of data that a run is about."""
    return KINDS[config.dataset.kind]
