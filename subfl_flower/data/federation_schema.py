"""The schema of a federation: facts that all clients' data share, agreed on before a run.

`subfl partition` writes it to `federation.json`. Of single clients it contains only the ids, so it may be given to
the server, which has no data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from subfl_flower.data.ratings.attributes import MOST_FIELDS, MOST_VALUES
from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably

FEDERATION_FILE = "federation.json"
MOST_CLIENTS = 1 << 20

_FORMAT, _VERSION = "subfl-federation", 1
_LARGEST = 2**31 - 1
_MOST_BYTES = 1 << 24
_MOST_SHOWN = 60
_OF_ALL = ("dataset", "partition", "clients", "names", "overlapping")
_OF_KIND = {"graph": ("features", "classes"), "ratings": ("items", "user_values", "item_values")}
_IDS = f"must be different ids from 0 to {_LARGEST}, or ranges of them, such as [0-9] or [0,2,5-7]"

_Size = Annotated[int, Field(ge=1, le=_LARGEST)]
_Values = Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_VALUES)], ...], Field(max_length=MOST_FIELDS)]


class FederationSchema(BaseModel):
    """Facts that all clients' data share; None where not stated.

    Attributes:
        dataset: name of the data set.
        partition: key of the partition that the clients' folders were cut from, 16 hexadecimal digits; empty where each
            site made its own folder.
        clients: the clients' ids, ascending, where ``"0-9"`` stands for a range; None where participation is open.
        features, classes: width of nodes' features and number of classes, of graphs; no classes without labels.
        items: number of items, of ratings.
        names: digest of the names of classes and features, 16 hexadecimal digits; empty where the data have no names.
        user_values, item_values: number of values of each attribute of users, or of items, of ratings.
        overlapping: true where clients may share nodes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    partition: str | None = Field(default=None, pattern="^([0-9a-f]{16})?$")
    clients: tuple[int | str, ...] | None = Field(default=None, strict=False)
    features: _Size | None = None
    classes: int | None = Field(default=None, ge=0, le=_LARGEST)
    items: _Size | None = None
    names: str | None = Field(default=None, pattern="^([0-9a-f]{16})?$")
    user_values: _Values = Field(default=(), strict=False)
    item_values: _Values = Field(default=(), strict=False)
    overlapping: bool = False

    @classmethod
    def of(cls, dataset: str, about: Mapping[str, Any], sizes: Mapping[str, Any]) -> Self:
        """The schema of a partition.

        Args:
            dataset: name of the data set.
            about: facts of a roster on the prepared data; see `Domain.about`.
            sizes: the sizes among them; see `Domain.schema_sizes`.
        """
        return cls(
            dataset=dataset,
            partition=about["partition"],
            clients=(f"0-{about['num_clients'] - 1}",),
            names=about.get("names", ""),
            overlapping=about["overlapping"],
            **sizes,
        )

    def of_sites(self) -> Self:
        """The schema shared by sites that make their own folders: without a partition and without clients."""
        return self.model_copy(update={"partition": "", "clients": None})

    @field_validator("clients", mode="before")
    @classmethod
    def _canonical(cls, value: Any) -> Any:
        """Ids and ranges in ascending order, neighbours joined, so that equal sets of clients have equal text."""
        if value is None:
            return None
        parts = [value] if isinstance(value, int | str) else value
        if not isinstance(parts, Sequence):
            raise ValueError(_IDS)
        ranges = sorted(map(_range, parts), key=lambda ids: ids.start)
        if not ranges or any(first.stop > second.start for first, second in pairwise(ranges)):
            raise ValueError(_IDS)
        if sum(map(len, ranges)) > MOST_CLIENTS:
            raise ValueError(f"must be at most {MOST_CLIENTS} clients")
        joined = ranges[:1]
        for following in ranges[1:]:
            if joined[-1].stop == following.start:
                joined[-1] = range(joined[-1].start, following.stop)
            else:
                joined.append(following)
        return tuple(ids.start if len(ids) == 1 else f"{ids.start}-{ids.stop - 1}" for ids in joined)

    @model_validator(mode="before")
    @classmethod
    def _read_before(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("a file is read by subfl deploy submit and by flwr run alone; elsewhere leave it out")
        return value

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.features, self.classes) != (None, None) and (self.items, self.user_values, self.item_values) != (
            *(None, (), ()),
        ):
            raise ValueError("features and classes are of graphs; items, user_values and item_values are of ratings")
        return self

    @property
    def kind(self) -> str | None:
        """Kind of data for which the schema is complete, ``graph`` or ``ratings``; None where sizes are missing."""
        if self.items is not None:
            return "ratings"
        return None if self.features is None or self.classes is None else "graph"

    @property
    def is_stated(self) -> bool:
        """True if any fact is stated."""
        return self != FederationSchema()

    @property
    def client_ids(self) -> Sequence[int] | None:
        """The clients' ids, ascending; None where participation is open."""
        if self.clients is None:
            return None
        ranges = [_range(part) for part in self.clients]
        return ranges[0] if len(ranges) == 1 else tuple(client for ids in ranges for client in ids)

    def as_overrides(self) -> Iterator[str]:
        """The stated facts as overrides of the section `schema`, which need no file."""
        for name, value in self:
            if value in (None, ()):
                continue
            if isinstance(value, tuple):
                text = f"[{','.join(map(str, value))}]"
            else:
                text = f"'{value}'" if isinstance(value, str) else str(value).lower()
            yield f"schema.{name}={text}"

    def as_bytes(self) -> bytes:
        """The content of `federation.json`."""
        assert self.kind is not None
        content = self.model_dump(mode="json", include={*_OF_ALL, *_OF_KIND[self.kind]})
        return json.dumps({"format": _FORMAT, "version": _VERSION, **content}, indent=1).encode() + b"\n"

    def write(self, path: Path) -> None:
        """Replace the file `path` in one step.

        Raises:
            OSError: it cannot be written.
        """
        write_durably(path, self.as_bytes())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The schema in a file.

        Raises:
            SubflError: the file is absent, damaged or of another version, or states impossible values.
        """
        content = _content(path)
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise SubflError(f"{path} is not the schema of a federation; subfl partition writes {FEDERATION_FILE}")
        version = content.pop("version", None)
        if version != _VERSION or isinstance(version, bool):
            raise SubflError(f"{path} has the version {_shown(version)}; this release reads {_VERSION}")
        kind = "ratings" if "items" in content else "graph"
        if missing := [key for key in (*_OF_ALL, *_OF_KIND[kind]) if key not in content]:
            raise SubflError(f"{path} lacks {missing[0]}; make it again with subfl partition")
        try:
            schema = cls.model_validate(content)
        except ValidationError as error:
            raise SubflError(f"{path}: {_first(error, content)}") from None
        if schema.kind is None or schema.dataset is None:
            raise SubflError(f"{path}: dataset and sizes must be stated; make it again with subfl partition")
        return schema


def _content(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SubflError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(text) > _MOST_BYTES:
        raise SubflError(f"{path} has more than {_MOST_BYTES} bytes, so it is not the schema of a federation")
    try:
        return pydantic_core.from_json(text)
    except ValueError as error:
        raise SubflError(f"{path} is not JSON ({error}); make it again with subfl partition") from None


def _range(part: Any) -> range:
    """The ids of an entry of `clients`: one id, or a range as text."""
    match = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", str(part)) if type(part) in (int, str) else None
    if match is None:
        raise ValueError(_IDS)
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last <= _LARGEST:
        raise ValueError(_IDS)
    return range(first, last + 1)


def _first(error: ValidationError, content: Mapping[str, Any]) -> str:
    """The first problem in words."""
    first = error.errors(include_url=False)[0]
    key = first["loc"][0] if first["loc"] else None
    if first["type"] == "extra_forbidden":
        return f"there is no such key as {_shown(key)}"
    message = first["msg"].removeprefix("Value error, ")
    return message if key is None else f"{key}: {message} (found {_shown(content.get(str(key)))})"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
