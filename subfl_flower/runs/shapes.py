"""Shapes of what a run's files hold: a damaged or foreign file is refused where it is read, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, model_validator

from subfl_flower.errors import SubflError

_LARGEST = 2**63 - 1
_SHOWN = 40

_Count = Annotated[StrictInt, Field(ge=0, le=_LARGEST)]
_Number = StrictInt | StrictFloat
_Figures = dict[str, _Number | None]


class _Shape(BaseModel):
    """Values that readers rely on; there may be others."""

    model_config = ConfigDict(extra="allow")


class _OneTest(_Shape):
    test: _Number | None = None


class _WorstClient(_OneTest):
    client: _Count


class _PerClient(_Shape):
    ids: list[_Count]
    test_at_best_validation: list[_Number | None]
    validation_at_best_validation: list[_Number | None]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _require_one_value_each(self.ids, vars(self))
        return self


class _Exchange(_Shape):
    action: StrictStr
    round: _Count = 0
    bytes_up: _Count
    bytes_down: _Count
    seconds: _Number


class _Privacy(_Shape):
    delta: _Number | None = None
    user_level_epsilon: _Number | None = None
    update_cosine: _Number | None = None
    per_coordinate_epsilon: _Number | None = None
    whole_upload_epsilon: _Number | None = None


class Summary(_Shape):
    """Content of ``summary.json``; every key may be missing."""

    status: StrictStr | None = None
    method: StrictStr | None = None
    dataset: StrictStr | None = None
    partition: StrictStr | None = None
    clients: _Count | None = None
    seed: StrictInt | StrictStr | None = None
    metric: StrictStr | None = None
    versions: dict[str, str | None] | None = None
    best_round: _Count | None = None
    test_at_best_validation: _Number | None = None
    test_last: _Number | None = None
    best_validation: _Number | None = None
    figures: _Figures | None = None
    worst_client: _WorstClient | None = None
    tenth_percentile: _Number | None = None
    per_client: _PerClient | None = None
    bias_row: _OneTest | None = None
    popularity: _OneTest | None = None
    privacy: _Privacy | None = None
    exchanges: list[_Exchange] | None = None
    model_parameters: _Count | None = None


class Data(_Shape):
    """Content of ``data.json``."""

    fingerprints: dict[str, Any] | None = None
    sources: dict[str, StrictStr] | None = None


class _Clients(_Shape):
    ids: list[_Count] = []

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _require_one_value_each(self.ids, self.model_extra or {})
        return self


class Round(_Shape):
    """A line of ``metrics.jsonl``; every key but the round's number may be missing."""

    round: _Count
    metric: StrictStr | None = None
    validation: _Number | None = None
    test: _Number | None = None
    figures: _Figures | None = None
    clients_heard: _Count | None = None
    clients: _Clients | None = None
    bytes_up: _Count | None = None
    bytes_down: _Count | None = None
    bytes_evaluation: _Count | None = None
    seconds: _Figures | None = None
    failures: dict[str, Any] | None = None


def require_shape(shape: type[BaseModel], found: Mapping[str, Any], path: Path, where: str = "") -> None:
    """Refuse content that readers could not use.

    Args:
        shape: the shape.
        found: the content.
        path: the file.
        where: place in the file.

    Raises:
        SubflError: names the file and the first key with a wrong value.
    """
    try:
        shape.model_validate(found)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        value = "" if isinstance(first["input"], Mapping) else f" (found {str(first['input'])[:_SHOWN]!r})"
        reason = first["msg"].removeprefix("Value error, ")
        raise SubflError(f"{path}{where}: {_key(first['loc'], found)}: {reason}{value}") from None


def _key(location: Sequence[int | str], found: Any) -> str:
    """The key of a problem: its location without the names of a union's members."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int) or (isinstance(found, Mapping) and part in found):
            parts.append(str(part))
            found = found[part]
    return ".".join(parts)


def _require_one_value_each(ids: list[int], lists: Mapping[str, Any]) -> None:
    """Require distinct ids of clients, and lists with a value for each."""
    if len(set(ids)) < len(ids):
        raise ValueError("a client id comes twice in ids")
    for name, values in lists.items():
        if not isinstance(values, list) or len(values) != len(ids):
            raise ValueError(f"{name} must be a list with a value for each of the {len(ids)} ids")
