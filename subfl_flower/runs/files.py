"""Files of a run: replaced whole or not at all, and read with one sentence for each error."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder, write_durably


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal (disk full, no permission) into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: a reader, or a crash, sees the old file or the new one."""
    with writing(path):
        make_private_folder(path.parent)
        write_durably(path, content)


def mend_last_line(file: Any) -> None:
    """Make `file` end after a whole line: cut off a torn line, or add a missing line end."""
    file.seek(0)
    content = file.read()
    _, _, last = content.rpartition(b"\n")
    if not last:
        return
    if parse_object(last) is None:
        file.truncate(len(content) - len(last))
    else:
        file.write(b"\n")


def read_file(path: Path) -> bytes:
    """A file's bytes; SubflError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SubflError(f"cannot read {path}: {error.strerror or error}") from None


def parse_object(text: bytes) -> dict[str, Any] | None:
    """The JSON object in `text`; None where `text` is not one."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def plain_values(value: Any, finite: bool = False) -> Any:
    """`value` in built-in types only; with `finite`, NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item, finite) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        known = value.dtype.kind in "iub" or (value.dtype.kind == "f" and np.isfinite(value).all())
        return value.tolist() if known else plain_values(value.tolist(), finite)
    if isinstance(value, list | tuple):
        return [plain_values(item, finite) for item in value]
    if isinstance(value, Path):
        return str(value)
    if finite and isinstance(value, float) and not math.isfinite(value):
        return None
    return value
