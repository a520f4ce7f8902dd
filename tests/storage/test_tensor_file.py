"""Files of arrays with a card: what comes back, what is refused and in which words, and who may read them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save

from subfl_flower.errors import SubflError
from subfl_flower.storage.tensor_file import Card, read_card, read_tensor_file, require_tensors, write_tensor_file


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    row: int


class Notes(Card):
    """A card of version 2."""

    holds: ClassVar[str] = "notes"
    remedy: ClassVar[str] = "write them again"

    kind: Literal["notes"] = "notes"
    schema_version: Literal[2] = Field(default=2, alias="schema")
    client: int = Field(ge=0)
    share: float
    names: tuple[str, ...] = ()
    place: Place = Place(row=0)
    mended: bool = False


class Plain(Card):
    holds: ClassVar[str] = "numbers"

    kind: Literal["numbers"] = "numbers"


CARD = Notes(client=7, share=0.1, names=("é", "b"))
TEXT = json.loads(CARD.as_json())
GRID = np.arange(12, dtype=np.float32).reshape(3, 4)
ARRAYS: dict[str, np.ndarray] = {
    "grid": GRID,
    "transposed": GRID.T,
    "every_other": GRID[::2, 1:3],
    "backwards": GRID[::-1],
    "broadcast": np.broadcast_to(GRID[:1], (5, 4)),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "scalar": np.array(3.5),
    "nothing": np.zeros((0, 4), dtype=np.int8),
    "flags": np.array([True, False]),
    "special": np.array([np.nan, np.inf, -0.0, 1e-45], dtype=np.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def by_hand(path: Path, card: object, arrays: dict[str, np.ndarray] | None = None) -> Path:
    """A file with a card that no class wrote; None: without a card, though with other metadata."""
    metadata = {"format": "np"} if card is None else {"card": card if isinstance(card, str) else json.dumps(card)}
    path.write_bytes(save({"x": np.ones(2)} if arrays is None else arrays, metadata))
    return path


def refusal(path: Path, kind: type[Card] = Notes, **options: Any) -> str:
    """The sentence that refuses a file, after the file's name."""
    with pytest.raises(SubflError) as error:
        read_tensor_file(path, kind, **options)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text.removeprefix(str(path))


def test_arrays_of_any_layout_and_the_card_come_back(path: Path) -> None:
    write_tensor_file(path, ARRAYS, CARD)
    found, card = read_tensor_file(path, Notes)
    assert card == CARD and set(found) == set(ARRAYS)
    for name, values in ARRAYS.items():
        assert found[name].dtype == values.dtype and found[name].shape == values.shape, name
        assert found[name].tobytes() == values.tobytes(), name  # of both in C order: every bit, NaN and -0 included


def test_the_file_says_what_it_is_to_any_reader_of_safetensors(path: Path) -> None:
    """The form, read by hand: eight bytes of length, a JSON header, and one metadata entry."""
    write_tensor_file(path, {"grid": GRID}, CARD)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert list(header["__metadata__"]) == ["card"]
    assert json.loads(header["__metadata__"]["card"]) == {
        "kind": "notes", "schema": 2, "client": 7, "share": 0.1, "names": ["é", "b"], "place": {"row": 0},
        "mended": False,
    }  # fmt: skip
    assert header["grid"]["dtype"] == "F32" and content[8 + length :] == GRID.tobytes()
    assert read_card(path) == json.loads(header["__metadata__"]["card"])


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    """In whatever order, and whatever the layout in memory, as a checksum over the file needs it."""
    write_tensor_file(tmp_path / "one", ARRAYS, CARD)
    backwards = {name: np.array(ARRAYS[name], order="F") for name in reversed(ARRAYS)}
    write_tensor_file(tmp_path / "other", backwards, Notes(names=("é", "b"), share=0.1, client=7))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from subfl_flower.node.kept_arrays import KeptCard\n"
        "from subfl_flower.storage.tensor_file import write_tensor_file\n"
        "arrays = {name: np.ones(3) for name in 'abcdefgh'}\n"
        "write_tensor_file(Path(sys.argv[1]), arrays, KeptCard(client=1, name='n', round=2))\n"
    )
    for name in ("first", "second"):  # with another order of hashes
        subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True, timeout=120)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_some_arrays_and_some_rows(path: Path) -> None:
    write_tensor_file(path, {"grid": GRID, "line": np.arange(3), "scalar": np.array(1)}, CARD)
    found, card = read_tensor_file(path, Notes, ("line", "grid"), slice(1, 3))
    assert list(found) == ["line", "grid"] and card == CARD
    np.testing.assert_array_equal(found["line"], [1, 2])
    np.testing.assert_array_equal(found["grid"], GRID[1:3])
    assert list(read_tensor_file(path, Notes, ["scalar"])[0]) == ["scalar"]
    assert read_tensor_file(path, Notes, ())[0] == {}


@pytest.mark.parametrize("start", [0, 1, 3])
def test_no_rows_may_be_read_anywhere(path: Path, start: int) -> None:
    """Of the last user, who rated nothing, they begin where the array ends."""
    write_tensor_file(path, {"grid": GRID}, CARD)
    found = read_tensor_file(path, Notes, ("grid",), slice(start, start))[0]["grid"]
    assert found.shape == (0, 4) and found.dtype == np.float32


def test_arrays_and_rows_that_are_not_there_are_named(path: Path) -> None:
    write_tensor_file(path, {"grid": GRID}, CARD)
    assert refusal(path, names=("grid", "y", "z")) == " does not hold notes: it holds no y, z; write them again"
    said = refusal(path, names=("grid",), rows=slice(2, 4))
    assert said.startswith(" does not hold notes: ") and "[2:4]" in said and "[3, 4]" in said


@pytest.mark.parametrize(("schema", "age"), [(1, "an older"), (3, "a newer"), (10**30, "a newer")])
def test_another_version_is_named_whatever_else_is_in_the_card(path: Path, schema: int, age: str) -> None:
    expected = f" does not hold notes: {age} version wrote it (schema {schema}, this version reads the schema 2)"
    for content in ({**TEXT, "schema": schema}, {"schema": schema}, {"schema": schema, "unknown": []}):
        assert refusal(by_hand(path, {**content, "kind": "notes"})) == f"{expected}; write them again"


def test_a_class_without_a_version_is_of_the_first(path: Path) -> None:
    write_tensor_file(path, {"grid": GRID}, Plain())
    assert read_card(path) == {"kind": "numbers", "schema": 1} and read_tensor_file(path, Plain)[1] == Plain()
    expected = " does not hold numbers: a newer version wrote it (schema 2, this version reads the schema 1)"
    assert refusal(by_hand(path, {"kind": "numbers", "schema": 2}), Plain) == expected
    assert (
        refusal(by_hand(path, {"kind": "numbers"}), Plain) == " does not hold numbers: its card does not state a schema"
    )
    for schema, words in ((0, "greater than or equal to 1"), (True, "valid integer"), ("1", "valid integer")):
        said = refusal(by_hand(path, {"kind": "numbers", "schema": schema}), Plain)
        assert said.startswith(": card.schema: Input should be ") and words in said


def test_a_file_without_a_card_is_refused(path: Path) -> None:
    expected = " does not hold notes: it does not say what it is (no 'card' in its metadata); write them again"
    assert refusal(by_hand(path, None)) == expected
    path.write_bytes(save({"x": np.ones(2)}))
    assert refusal(path) == expected and read_card(path) == {}


def test_the_card_of_another_class_is_refused(path: Path) -> None:
    write_tensor_file(path, {"grid": GRID}, Plain())
    said = " does not hold notes: its card is of the kind 'numbers', where 'notes' belongs; write them again"
    assert refusal(path) == said
    assert refusal(path, names=("absent",)) == said  # the card comes first
    write_tensor_file(path, {"grid": GRID}, CARD)
    assert refusal(path, Plain) == " does not hold numbers: its card is of the kind 'notes', where 'numbers' belongs"
    for kind in (None, 1, ["numbers"], "Numbers"):
        said = "states no kind" if kind is None else f"is of the kind {kind!r}"
        card = {"schema": 1, "kind": kind}
        assert (
            refusal(by_hand(path, card), Plain) == f" does not hold numbers: its card {said}, where 'numbers' belongs"
        )
    assert "states no kind" in refusal(by_hand(path, {"schema": 1}), Plain)
    said = refusal(by_hand(path, {**TEXT, "kind": "numbers", "schema": 1}), Plain)
    assert said == ": card.client: Extra inputs are not permitted (this version reads the schema 1)"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "card: Invalid JSON"),
        ("", "card: Invalid JSON"),
        ("[" * 100_000, "card: Invalid JSON"),
        ('{"schema":' * 100_000, "card: Invalid JSON"),
        ('{"schema": ' + "1" * 5000 + "}", "card: Invalid JSON"),
        ('{"kind": "notes", "schema": 2, "client": "\\ud800"}', "card: Invalid JSON"),
        ("[]", "card: Input should be an object"),
        ("3", "card: Input should be an object"),
        ({**TEXT, "schema": "2"}, "card.schema: Input should be 2"),
        ({**TEXT, "client": "7"}, "card.client: Input should be a valid integer"),
        ({**TEXT, "client": True}, "card.client: Input should be a valid integer"),
        ({**TEXT, "client": 7.0}, "card.client: Input should be a valid integer"),
        ({**TEXT, "client": None}, "card.client: Input should be a valid integer"),
        ({**TEXT, "client": -1}, "card.client: Input should be greater than or equal to 0"),
        ({**TEXT, "share": "0.1"}, "card.share: Input should be a valid number"),
        ({**TEXT, "share": float("nan")}, "card.share: Input should be a finite number"),
        (json.dumps(TEXT).replace("0.1", "1e999"), "card.share: Input should be a finite number"),
        ({**TEXT, "names": "b"}, "card.names: Input should be a valid array"),
        ({**TEXT, "names": ["a", 2]}, "card.names.1: Input should be a valid string"),
        ({**TEXT, "mended": 1}, "card.mended: Input should be a valid boolean"),
        ({**TEXT, "place": {"row": "1"}}, "card.place.row: Input should be a valid integer"),
        ({**TEXT, "place": {}}, "card.place.row: Field required"),
        ({**TEXT, "owner": "me"}, "card.owner: Extra inputs are not permitted"),
        ({"kind": "notes", "schema": 2, "share": 1}, "card.client: Field required"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_card_is_named_by_its_key(path: Path, content: object, words: str) -> None:
    said = refusal(by_hand(path, content))
    assert said.startswith(f": {words}") and said.endswith(" (this version reads the schema 2)")
    assert isinstance(read_card(path), dict)


def bare(kind: str, size: int) -> bytes:
    """A file of four values of a type, with a sound card."""
    card = json.dumps(CARD.as_json())
    header = f'{{"__metadata__":{{"card":{card}}},"grid":{{"dtype":"{kind}","shape":[4],"data_offsets":[0,{size}]}}}}'
    return len(header.encode()).to_bytes(8, "little") + header.encode() + bytes(size)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-3],
    "cut in the header": lambda content: content[:40],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"x",
    "noise": lambda content: np.random.default_rng(0).bytes(200),
    "a long header": lambda content: b"\xff" * 8 + content,
    "a type that nobody knows": lambda content: content.replace(b'"F32"', b'"F99"'),
    "bfloat16": lambda content: bare("BF16", 8),
    "float8": lambda content: bare("F8_E4M3", 4),
}


def test_a_file_made_like_those_of_unknown_types_is_read(path: Path) -> None:
    path.write_bytes(bare("F32", 16))
    assert read_tensor_file(path, Notes)[0]["grid"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("rows", [None, slice(0, 1)])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(path: Path, damage: str, rows: slice | None) -> None:
    write_tensor_file(path, {"grid": GRID}, CARD)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    said = refusal(path, rows=rows)
    assert said.startswith(" does not hold notes: it is not a whole safetensors file (")
    assert said.endswith("; write them again")
    assert read_card(path) in ({}, TEXT)


def test_a_folder_and_nothing_in_its_place_are_named(path: Path) -> None:
    absent = " does not hold notes: there is no such file; write them again"
    assert refusal(path) == absent and read_card(path) == {}
    path.mkdir()
    assert refusal(path) == " does not hold notes: it is a folder; write them again" and read_card(path) == {}
    (path / "b").write_text("")
    assert refusal(path / "b" / "c") == absent


def test_the_owner_alone_may_read_what_is_made(tmp_path: Path) -> None:
    """Whatever the umask; folders that are there already stay as they are."""
    (tmp_path / "there").mkdir(mode=0o755)
    (tmp_path / "there").chmod(0o755)
    file = tmp_path / "there" / "new" / "inner" / "a.safetensors"
    umask = os.umask(0)
    try:
        write_tensor_file(file, {"grid": GRID}, CARD)
        file.chmod(0o644)  # as an earlier version left it
        write_tensor_file(file, {"grid": GRID}, CARD)
    finally:
        os.umask(umask)
    modes = {place.name: place.stat().st_mode & 0o777 for place in (file, *list(file.parents)[:3])}
    assert modes == {"a.safetensors": 0o600, "inner": 0o700, "new": 0o700, "there": 0o755}


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_failure_leaves_the_earlier_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_tensor_file(path, {"grid": GRID}, CARD)
    before = path.read_bytes()

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if step == "replace" else os, step, full)
        with pytest.raises(SubflError) as error:
            write_tensor_file(path, {"grid": GRID + 1}, CARD)
    assert str(error.value) == f"notes cannot be written to {path}: No space left on device"
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_in_the_way_of_the_folder_or_a_folder_in_that_of_the_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    for inner in ("a.safetensors", "more/a.safetensors"):
        with pytest.raises(SubflError) as error:
            write_tensor_file(tmp_path / "file" / inner, {"grid": GRID}, CARD)
        assert str(error.value) == f"notes cannot be written to {tmp_path / 'file' / inner}: Not a directory"
    with pytest.raises(SubflError, match=r"notes cannot be written to .*/folder: Is a directory"):
        write_tensor_file(tmp_path / "folder", {"grid": GRID}, CARD)
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(place.name for place in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "m holds no w; its tensors are "),
        ({"v": GRID}, "m holds no w; its tensors are v"),
        ({"w": GRID.T}, "m: w is float32 [4, 3], not float32 [3, 4]"),
        ({"w": GRID.astype(np.float64)}, "m: w is float64 [3, 4], not float32 [3, 4]"),
        ({"w": np.where(GRID == 7, np.inf, GRID).astype(np.float32)}, "m: w holds values that are not finite"),
    ],
)
def test_tensors_must_be_those_of_a_model(tensors: dict[str, np.ndarray], words: str) -> None:
    require_tensors({"w": GRID, "more": np.array([np.nan])}, {"w": (3, 4)}, "m")
    with pytest.raises(SubflError) as error:
        require_tensors(tensors, {"w": (3, 4)}, "m")
    assert str(error.value) == words
