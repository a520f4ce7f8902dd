"""A trained model as files that stand alone: its parameters, and a card that says what they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from safetensors import safe_open
from safetensors.numpy import save

from subfl_flower.data.data_facts import DataFacts
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import AnyGraphModel
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.graph_network import GraphNetwork
from subfl_flower.tasks.choices import AnyGraphTask

MODEL_SCHEMA: Literal[2] = 2
"""Raised whenever one version could not read another's files; since 2 a model of a graph knows its classes by name."""

CARD = "card"
"""The metadata entry of a safetensors file that holds the card as JSON."""

TENSORS, _CARD_FILE = "model.safetensors", "model.json"


class Card(BaseModel):
    """Description of the tensors of a file.

    Attributes:
        schema_version: in the file `schema`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_version: Literal[2] = Field(default=MODEL_SCHEMA, alias="schema")

    def as_json(self, indent: int | None = None) -> str:
        """The form that is written."""
        return self.model_dump_json(by_alias=True, indent=indent)


AnyCard = TypeVar("AnyCard", bound=Card)


class ModelCard(DataFacts, Card):
    """Origin and architecture of a model.

    Attributes:
        model: the architecture.
        task: what was learnt.
        num_features, num_classes: of the data set; no classes without labels.
        dataset: name of the data set.
        client: id of the client that the model is of.
        method: name of the method.
        run: the run's id.
        round: the last round that the client trained in; None where it is not known.
        validation: the client's best validation figure; None where it has none.
        mended: whether the client's graph was mended by what others hold or by what was generated.
        classes, transform, data, reading: of the data that the client trained on, as `DataFacts` says.
    """

    model: AnyGraphModel
    task: AnyGraphTask
    num_features: int = Field(ge=1)
    num_classes: int = Field(ge=0)
    dataset: str
    client: int = Field(ge=0)
    method: str
    run: str
    round: int | None = Field(default=None, ge=0)
    validation: float | None = None
    mended: bool = False

    @pydantic.model_validator(mode="after")
    def _named_once(self) -> Self:
        self.require_classes(self.num_classes)
        return self

    @property
    def gnn(self) -> GraphNetwork[Any]:
        """The architecture, without parameters.

        Raises:
            SubflError: its class cannot be imported, or cannot be made.
        """
        return graph_network(self.model, self.num_features, self.task.num_outputs(self.num_classes))


def write_model(folder: Path, tensors: Mapping[str, np.ndarray], card: ModelCard) -> None:
    """Write `model.safetensors`, with the card in its metadata, and `model.json`, the same card to look at.

    Each file is replaced in one step; a failure leaves the earlier ones.

    Args:
        folder: where to write; made where it does not exist.
        tensors: the model's parameters, float32, without client axis.
        card: what they are of.

    Raises:
        SubflError: the tensors are not those of the card's model, or a file cannot be written.
    """
    _require_model(tensors, card, str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / TENSORS, with_card(tensors, card))
        write_durably(folder / _CARD_FILE, card.as_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise SubflError(f"the model cannot be written to {folder}: {error.strerror or error}") from error


def read_model(path: Path) -> tuple[dict[str, np.ndarray], ModelCard]:
    """A model's parameters, float32 without client axis, and its card, which is read from the parameters' own file.

    Args:
        path: a folder that `write_model` wrote to, or a safetensors file with a card in its metadata, as a run leaves
            of every client.

    Raises:
        SubflError: there is no such file, it is damaged or has no card, or its tensors are not those of the card's
            model.
    """
    file = path / TENSORS if path.is_dir() else path
    if not file.is_file():
        raise SubflError(f"{file} does not exist; a model is a folder with {TENSORS}, or a safetensors file")
    tensors, card = read_with_card(file, ModelCard)
    _require_model(tensors, card, str(file))
    return tensors, card


def with_card(tensors: Mapping[str, np.ndarray], card: Card) -> bytes:
    """The content of a safetensors file with a card in its metadata."""
    # In C order, because safetensors writes the memory of an array as it lies.
    return save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, {CARD: card.as_json()})


def read_with_card(file: Path, kind: type[AnyCard]) -> tuple[dict[str, np.ndarray], AnyCard]:
    """The tensors of a safetensors file, unchecked, and the card in its metadata.

    Args:
        file: exists.
        kind: the card's class.

    Raises:
        SubflError: the file is damaged, or has no card of this class.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except Exception as error:  # a damaged file: safetensors and NumPy each raise their own
        raise SubflError(f"{file} is not a whole safetensors file ({error})") from error
    if CARD not in metadata:
        raise SubflError(f"{file} does not say what it is a model of (no {CARD!r} in its metadata); export it again")
    try:
        return tensors, kind.model_validate_json(metadata[CARD])
    except SubflError as error:  # its task is a class that cannot be used here
        raise SubflError(f"{file}: {CARD}.{error}") from None
    except pydantic.ValidationError as error:
        first, found = error.errors(include_url=False)[0], _schema_of(metadata[CARD])
        if isinstance(found, int) and 1 <= found < MODEL_SCHEMA:
            raise SubflError(
                f"{file} was written by an older version (schema {found}, this version reads {MODEL_SCHEMA}); "
                "train again"
            ) from None
        key, said = ".".join([CARD, *_key_of(first, metadata[CARD])]), first["msg"]
        if first["type"] == "union_tag_invalid":
            key, said = f"{key}.name", f"Input should be {first['ctx']['expected_tags']}"
        raise SubflError(f"{file}: {key}: {said} (this version reads the schema {MODEL_SCHEMA})") from None


def _schema_of(card: str) -> object:
    """Schema that a refused card states; None where it states none."""
    try:
        content = from_json(card)
    except ValueError:
        return None
    return content.get("schema") if isinstance(content, dict) else None


def _key_of(problem: Mapping[str, Any], card: str) -> list[str]:
    """The keys that lead to a problem of a card: its location without the names of union members."""
    if problem["type"] == "json_invalid":
        return []
    *path, last = problem["loc"] or ("",)
    here, keys = from_json(card), []
    for part in path:
        if isinstance(here, dict) and part in here:
            keys.append(str(part))
            here = here[part]
    return [*keys, str(last)]


def _require_model(tensors: Mapping[str, np.ndarray], card: ModelCard, source: str) -> None:
    """Raise SubflError unless the tensors have the names, shapes and type of the card's network, and are finite."""
    _require_number(tensors, card, card.model.num_tensors, source)  # before it is laid out: a card may claim any depth
    try:
        shapes = card.gnn.tensor_shapes
    except SubflError as error:
        raise SubflError(f"{source}: {error}") from None
    _require_number(tensors, card, len(shapes), source)
    require_tensors(tensors, shapes, source)


def _require_number(tensors: Mapping[str, np.ndarray], card: ModelCard, needed: int | None, source: str) -> None:
    """Raise SubflError unless there are as many tensors as are `needed`; None where that is not known yet."""
    if needed is not None and len(tensors) != needed:
        raise SubflError(f"{source} holds {len(tensors)} tensors; a {card.model} has {needed}")


def require_tensors(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise SubflError unless there is a finite float32 tensor of each name and shape; further ones are not looked at.

    Args:
        tensors: by name.
        shapes: what they must have, by name.
        source: where they are from, for the error.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise SubflError(f"{source} holds no {name}; its tensors are {', '.join(sorted(tensors))}")
        found = tensors[name]
        if found.shape != shape or found.dtype != np.float32:
            raise SubflError(f"{source}: {name} is {found.dtype} {list(found.shape)}, not float32 {list(shape)}")
        if not np.isfinite(found).all():
            raise SubflError(f"{source}: {name} holds values that are not finite")
