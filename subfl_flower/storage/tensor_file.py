"""The file of everything that holds arrays: safetensors, with one typed card in its metadata.

A card says of what kind the arrays are, and in which version of its format they are written. Equal arrays and cards
give equal bytes. A file is replaced in one step, and its owner alone may read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from safetensors import safe_open
from safetensors.numpy import save

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder, write_durably

MODEL_FILE = "model.safetensors"
"""Name of the file of a client's model, in a folder that holds nothing else of the kind."""

CARD = "card"
"""The metadata entry that holds the card as JSON; one entry, because safetensors writes several in random order."""


class Card(BaseModel):
    """Facts on the arrays of one file; a subclass adds its own, and states its version as the default of `schema`.

    Attributes:
        holds: the content in words, for errors: "a client's graph".
        remedy: advice to somebody whose file cannot be read; empty where there is none.
        kind: of the content, one word; fixed by the subclass, as the default of a `Literal`.
        schema_version: the version of the format, 1 or more; in the file `schema`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)

    holds: ClassVar[str]
    remedy: ClassVar[str] = ""

    kind: str
    schema_version: int = Field(default=1, alias="schema", ge=1)

    def as_json(self, indent: int | None = None) -> str:
        """The form that is written."""
        return self.model_dump_json(by_alias=True, indent=indent)

    @classmethod
    def version(cls) -> int:
        """The version that this class reads and writes."""
        default: int = cls.model_fields["schema_version"].default
        return default

    @classmethod
    def own_kind(cls) -> str:
        """The kind that this class reads and writes."""
        default: str = cls.model_fields["kind"].default
        return default

    @classmethod
    def damaged(cls, path: Path, reason: object) -> SubflError:
        """The error of a file that does not hold what its card's class says."""
        advice = f"; {cls.remedy}" if cls.remedy else ""
        return SubflError(f"{path} does not hold {cls.holds}: {reason}{advice}")


AnyCard = TypeVar("AnyCard", bound=Card)


def tensor_bytes(tensors: Mapping[str, np.ndarray], card: Card) -> bytes:
    """The content of a file."""
    # In C order, because safetensors writes the memory of an array as it lies.
    return save({name: np.asarray(array, order="C") for name, array in tensors.items()}, {CARD: card.as_json()})


def write_tensor_file(path: Path, tensors: Mapping[str, np.ndarray], card: Card) -> None:
    """Replace a file in one step; a failure leaves an earlier one.

    Args:
        path: of the file; its folder is made where it does not exist.
        tensors: arrays by name.
        card: facts on them.

    Raises:
        SubflError: it cannot be written.
    """
    try:
        make_private_folder(path.parent)
        write_durably(path, tensor_bytes(tensors, card))
    except OSError as error:
        raise SubflError(f"{card.holds} cannot be written to {path}: {error.strerror or error}") from error


def read_tensor_file(
    path: Path, kind: type[AnyCard], names: Iterable[str] | None = None, rows: slice | None = None
) -> tuple[dict[str, np.ndarray], AnyCard]:
    """The arrays and the card of a file; sizes and values of the arrays are not looked at.

    Args:
        path: of the file.
        kind: the card's class.
        names: of the arrays to read; None: all.
        rows: of these arrays; None: all.

    Raises:
        SubflError: there is no such file, it is damaged, it lacks one of the arrays, or its card is another one.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            held = set(file.keys())
            wanted = sorted(held) if names is None else list(names)
            text = (file.metadata() or {}).get(CARD)
            tensors = {name: _array(file, name, rows) for name in wanted if name in held}
    except FileNotFoundError as error:
        raise kind.damaged(path, "there is no such file") from error
    except OSError as error:
        raise kind.damaged(path, "it is a folder" if path.is_dir() else f"it cannot be read ({error})") from error
    except Exception as error:  # safetensors and NumPy each raise their own for a damaged file
        raise kind.damaged(path, f"it is not a whole safetensors file ({error})") from error
    if text is None:
        raise kind.damaged(path, f"it does not say what it is (no {CARD!r} in its metadata)")
    card = parse_card(text, kind, path)
    if missing := [name for name in wanted if name not in held]:
        raise kind.damaged(path, f"it holds no {', '.join(missing)}")
    return tensors, card


def read_card(path: Path) -> dict[str, Any]:
    """The content of a file's card, unchecked; empty where there is no such card."""
    try:
        with safe_open(path, framework="numpy") as file:
            content = from_json((file.metadata() or {})[CARD])
    except Exception:  # `read_tensor_file` says what is wrong
        return {}
    return content if isinstance(content, dict) else {}


def parse_card(text: str, kind: type[AnyCard], path: Path) -> AnyCard:
    """A card of a class from its JSON.

    Raises:
        SubflError: it is of another kind or version, or a value is missing, unknown or not allowed.
    """
    content = _content(text)
    if isinstance(content, dict):
        if (found := content.get("kind")) != kind.own_kind():
            said = "states no kind" if found is None else f"is of the kind {found!r}"
            raise kind.damaged(path, f"its card {said}, where {kind.own_kind()!r} belongs")
        _require_version(content.get("schema"), kind, path)
    try:
        return kind.model_validate_json(text)
    except SubflError as error:  # a class that it names cannot be used here
        raise SubflError(f"{path}: {CARD}.{error}") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, said = ".".join([CARD, *_key_of(first, content)]), first["msg"]
        if first["type"] == "union_tag_invalid":
            key, said = f"{key}.name", f"Input should be {first['ctx']['expected_tags']}"
        raise SubflError(f"{path}: {key}: {said} (this version reads the schema {kind.version()})") from None


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


def _array(file: Any, name: str, rows: slice | None) -> np.ndarray:
    """An array of an open file, or some rows of it."""
    array: np.ndarray
    if rows is None:
        array = file.get_tensor(name)
    else:  # safetensors refuses to read no rows after the last one
        array = file.get_slice(name)[slice(0, 0) if rows.start == rows.stop else rows]
    return array


def _content(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return None


def _require_version(found: object, kind: type[Card], path: Path) -> None:
    """Raise SubflError for a card of another version; what is no version at all is left to the card's class."""
    if found is None:
        raise kind.damaged(path, "its card does not state a schema")
    if type(found) is int and found >= 1 and found != kind.version():
        age = "an older" if found < kind.version() else "a newer"
        read = f"this version reads the schema {kind.version()}"
        raise kind.damaged(path, f"{age} version wrote it (schema {found}, {read})")


def _key_of(problem: Mapping[str, Any], content: Any) -> list[str]:
    """The keys that lead to a problem of a card: its location without the names of union members."""
    if problem["type"] == "json_invalid" or not problem["loc"]:
        return []
    *path, last = problem["loc"]
    here, keys = content, []
    for part in path:
        if isinstance(here, dict) and part in here:
            keys.append(str(part))
            here = here[part]
    return [*keys, str(last)]
