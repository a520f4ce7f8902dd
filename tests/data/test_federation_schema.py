"""The file that states what all clients' data have in common: whole, or refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import SubflError

GRAPH: dict[str, Any] = {
    **{"format": "subfl-federation", "version": 1, "dataset": "cora", "partition": "0123456789abcdef"},
    **{"clients": ["0-9"], "features": 1433, "classes": 7, "names": "", "overlapping": False},
}
RATINGS: dict[str, Any] = {
    **{"format": "subfl-federation", "version": 1, "dataset": "ml100k", "partition": "", "clients": None},
    **{"items": 1682, "user_values": [2, 21], "item_values": [19], "names": "", "overlapping": False},
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "federation.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize("content", [GRAPH, RATINGS], ids=["graph", "ratings"])
def test_what_is_written_is_read_and_says_no_more(content: dict[str, Any], tmp_path: Path) -> None:
    schema = FederationSchema.read(written(tmp_path, content))
    schema.write(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_bytes()) == content
    assert FederationSchema.read(tmp_path / "again.json") == schema
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "federation.json"]
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in schema}
    assert {name: shown[name] for name in content if name not in ("format", "version")} == {
        name: value for name, value in content.items() if name not in ("format", "version")
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON (EOF while parsing"),
        (b'{"format": "subfl-federation", "ver', "is not JSON (EOF while parsing a string"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON (recursion limit exceeded"),
        (b" " * (1 << 24) + b"{}", "has more than 16777216 bytes"),
        ([GRAPH], "is not the schema of a federation; subfl partition writes federation.json"),
        ({**GRAPH, "format": "other"}, "is not the schema of a federation; subfl partition writes"),
        ({}, "is not the schema of a federation; subfl partition writes federation.json"),
        ({**GRAPH, "version": 2}, "has the version 2; this release reads 1"),
        ({**GRAPH, "version": True}, "has the version True; this release reads 1"),
        ({**GRAPH, "nodes": 3}, "there is no such key as 'nodes'"),
        ({**GRAPH, "items": 3}, "lacks user_values; make it again with subfl partition"),
        ({**GRAPH, **RATINGS}, "features and classes are of graphs; items, user_values and item_values are of ratings"),
        ({name: value for name, value in GRAPH.items() if name != "clients"}, "lacks clients; make it again"),
        ({name: value for name, value in GRAPH.items() if name != "classes"}, "lacks classes; make it again"),
        ({**GRAPH, "classes": None}, "dataset and sizes must be stated; make it again"),
        ({**GRAPH, "dataset": None}, "dataset and sizes must be stated; make it again"),
        ({**GRAPH, "features": 0}, "features: Input should be greater than or equal to 1 (found 0)"),
        ({**GRAPH, "features": 2**31}, "features: Input should be less than or equal to 2147483647 (found 2147483648)"),
        ({**GRAPH, "features": 10**400}, f"less than or equal to 2147483647 (found 1{'0' * 59}...)"),
        ({**GRAPH, "features": 3.0}, "features: Input should be a valid integer (found 3.0)"),
        ({**GRAPH, "features": True}, "features: Input should be a valid integer (found True)"),
        ({**GRAPH, "features": "3"}, "features: Input should be a valid integer (found '3')"),
        (json.dumps({**GRAPH, "classes": float("nan")}).encode(), "classes: Input should be a valid integer (found n"),
        ({**GRAPH, "classes": -1}, "classes: Input should be greater than or equal to 0 (found -1)"),
        ({**GRAPH, "dataset": "co\nra"}, "dataset: String should match pattern"),
        ({**GRAPH, "partition": "0123"}, "partition: String should match pattern '^([0-9a-f]{16})?$' (found '0123')"),
        ({**GRAPH, "names": "' a=1"}, "names: String should match pattern"),
        ({**GRAPH, "overlapping": 0}, "overlapping: Input should be a valid boolean (found 0)"),
        ({**GRAPH, "clients": []}, "clients: must be different ids from 0 to 2147483647, or ranges of them"),
        ({**GRAPH, "clients": [1, "0-3"]}, "clients: must be different ids from 0 to 2147483647, or ranges of them"),
        ({**GRAPH, "clients": ["3-1"]}, "clients: must be different ids from 0 to 2147483647, or ranges of them"),
        ({**GRAPH, "clients": [-1]}, "clients: must be different ids from 0 to 2147483647, or ranges of them"),
        ({**GRAPH, "clients": [2**31]}, "clients: must be different ids from 0 to 2147483647, or ranges of them"),
        ({**GRAPH, "clients": [True]}, "clients: must be different ids from 0 to 2147483647, or ranges of them"),
        ({**GRAPH, "clients": {"0": 1}}, "clients: must be different ids from 0 to 2147483647, or ranges of them"),
        ({**GRAPH, "clients": ["0-1048576"]}, "clients: must be at most 1048576 clients (found ['0-1048576'])"),
        ({**RATINGS, "items": 0}, "items: Input should be greater than or equal to 1 (found 0)"),
        ({**RATINGS, "user_values": [0]}, "user_values: Input should be greater than or equal to 1 (found [0])"),
        ({**RATINGS, "item_values": [2**20 + 1]}, "item_values: Input should be less than or equal to 1048576"),
        ({**RATINGS, "item_values": [1] * 65}, "item_values: Tuple should have at most 64 items"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_sentence(content: Any, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SubflError) as error:
        FederationSchema.read(path)
    text = str(error.value)
    assert text.startswith(str(path)) and reason in text and text.isprintable() and len(text) < len(str(path)) + 250


@pytest.mark.parametrize(("name", "reason"), [("absent", "No such file or directory"), ("", "Is a directory")])
def test_no_file_is_one_sentence(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SubflError) as error:
        FederationSchema.read(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name} cannot be read: {reason}"


@given(st.sets(st.integers(0, 40), min_size=1), st.randoms())
def test_a_set_of_clients_is_written_in_one_way(ids: set[int], random: Any) -> None:
    single: list[int] = list(ids)
    random.shuffle(single)
    schema = FederationSchema(clients=tuple(single))
    found = schema.client_ids
    assert found is not None and list(found) == sorted(ids)
    assert schema.clients is not None
    for entry in schema.clients:  # each is as long as can be
        first, _, last = str(entry).partition("-")
        assert int(first) - 1 not in ids and int(last or first) + 1 not in ids
        assert isinstance(entry, int) == (not last)
    assert FederationSchema(clients=tuple(reversed(schema.clients))) == schema


def test_clients_of_one_range_take_no_memory() -> None:
    assert FederationSchema(clients=("0-1048575",)).client_ids == range(1 << 20)


def test_a_schema_is_frozen_and_states_nothing_by_itself() -> None:
    schema = FederationSchema()
    assert (schema.is_stated, schema.kind, schema.client_ids, list(schema.as_overrides())) == (
        *(False, None, None, ["schema.overlapping=false"]),
    )
    assert FederationSchema(features=3).kind is None and FederationSchema(features=3, classes=0).kind == "graph"
    with pytest.raises(ValidationError):
        schema.features = 3  # type: ignore[misc]
