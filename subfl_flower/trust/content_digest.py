"""Digest of a message's content: every record, every name, every value, every byte of an array."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from flwr.app import ArrayRecord, RecordDict


def content_digest(content: RecordDict, leave_out: str) -> bytes:
    """SHA-256 of all records but one, the same before and after Flower's transport.

    Each part is preceded by its kind and its length, so two different contents never have the same encoding. Records,
    and the entries of a record, count in the order of their names.

    Args:
        content: of a message.
        leave_out: name of the record that does not count.
    """
    found = _Encoding()
    for name in sorted(set(content) - {leave_out}):
        record = content[name]
        found.part(b"record", f"{type(record).__name__}\0{name}".encode())
        if isinstance(record, ArrayRecord):
            for array_name, array in sorted(record.items()):
                found.part(b"array", array_name.encode())
                found.value([array.dtype, array.stype, *array.shape])
                found.part(b"data", array.data)
        else:
            for key, value in sorted(record.items()):
                found.part(b"entry", key.encode())
                found.value(value)
    return found.digest()


def encoded(*values: Any) -> bytes:
    """SHA-256 of some values, by which no two lists of values are taken for each other."""
    found = _Encoding()
    found.value(list(values))
    return found.digest()


class _Encoding:
    """A sequence of parts, hashed as it grows."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def part(self, kind: bytes, content: bytes) -> None:
        """Add a part of some bytes."""
        self._hash.update(kind + struct.pack(">Q", len(content)))
        self._hash.update(content)

    def value(self, value: Any) -> None:
        """Add a value of a record: a number, text, bytes, or a list of these.

        Raises:
            TypeError: it is none of these.
        """
        if isinstance(value, list):
            self.part(b"list", str(len(value)).encode())
            for each in value:
                self.value(each)
        elif isinstance(value, bool):
            self.part(b"bool", b"\1" if value else b"\0")
        elif isinstance(value, int):
            self.part(b"int", str(int(value)).encode())
        elif isinstance(value, float):
            self.part(b"float", struct.pack(">d", value))
        elif isinstance(value, str):
            self.part(b"text", value.encode())
        elif isinstance(value, bytes):
            self.part(b"bytes", value)
        else:
            raise TypeError(f"a record holds a value of type {type(value).__name__}")

    def digest(self) -> bytes:
        """The digest of all parts."""
        return self._hash.digest()
