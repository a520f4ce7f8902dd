"""A trained model as files that stand alone: its parameters, and a card that says what they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pydantic
from pydantic import Field

from subfl_flower.data.data_facts import DataFacts
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import AnyGraphModel
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.storage.tensor_file import MODEL_FILE, Card, read_tensor_file, require_tensors, write_tensor_file
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.graph_network import GraphNetwork
from subfl_flower.tasks.choices import AnyGraphTask


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

    holds: ClassVar[str] = "a model of a graph"
    remedy: ClassVar[str] = "train again"

    kind: Literal["graph_model"] = "graph_model"
    schema_version: Literal[2] = Field(default=2, alias="schema")
    """Since 2 a model of a graph knows its classes by name."""

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


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A client's trained model.

    Attributes:
        tensors: its parameters, float32, without client axis.
        card: facts on them.
    """

    tensors: Mapping[str, np.ndarray]
    card: ModelCard

    def write(self, path: Path) -> None:
        """Write a safetensors file with the card in its metadata; a failure leaves an earlier file.

        Args:
            path: of the file; its folder is made where it does not exist.

        Raises:
            SubflError: the tensors are not those of the card's model, or the file cannot be written.
        """
        _require_model(self.tensors, self.card, str(path))
        write_tensor_file(path, self.tensors, self.card)

    def write_with_card(self, path: Path) -> None:
        """Write the file of `write`, and beside it the card alone to look at, as `<name>.json`.

        Raises:
            SubflError: as `write`.
        """
        self.write(path)
        try:
            write_durably(path.with_suffix(".json"), self.card.as_json(indent=1).encode() + b"\n")
        except OSError as error:
            raise SubflError(f"the model cannot be written to {path.parent}: {error.strerror or error}") from error


def read_model(path: Path) -> tuple[dict[str, np.ndarray], ModelCard]:
    """A model's parameters, float32 without client axis, and its card, which is read from the parameters' own file.

    Args:
        path: a safetensors file with a card in its metadata, as a run leaves of every client, or a folder with such a
            file named `MODEL_FILE`.

    Raises:
        SubflError: there is no such file, it is damaged or has no card, or its tensors are not those of the card's
            model.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise SubflError(f"{file} does not exist; a model is a folder with {MODEL_FILE}, or a safetensors file")
    tensors, card = read_tensor_file(file, ModelCard)
    _require_model(tensors, card, str(file))
    return tensors, card


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
