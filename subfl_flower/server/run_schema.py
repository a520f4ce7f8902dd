"""The schema that a run's nodes must fit: of a simulation's data, or as the configuration states it."""

from __future__ import annotations

from subfl_flower.config import Config
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import Prepared, domain_of

_INLINE = {"graph": "schema.features=... and schema.classes=...", "ratings": "schema.items=..."}


def run_schema(config: Config, prepared: Prepared | None) -> FederationSchema:
    """The schema of a run.

    Args:
        config: of the run.
        prepared: all clients' data in a simulation; None: the configuration states the schema.

    Raises:
        SubflError: there are no data, and the configuration states no schema.
    """
    if prepared is None:
        return stated_schema(config)
    kind = domain_of(config)
    about = kind.about(prepared)
    return FederationSchema.of(config.dataset.name, about, kind.schema_sizes(about))


def stated_schema(config: Config) -> FederationSchema:
    """The schema that the configuration of a deployment states.

    Raises:
        SubflError: it states none, or not all sizes that a model's shape depends on.
    """
    schema = config.data_schema
    if schema.kind is None:
        raise SubflError(
            "schema: the server of a deployment has no data and must be told what the clients' look like: by "
            f"schema=FILE, the federation.json that subfl partition wrote, or by {_INLINE[config.dataset.kind]}"
        )
    return schema
