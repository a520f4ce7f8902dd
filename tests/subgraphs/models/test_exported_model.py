from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_cards import toy_card
from safetensors import safe_open
from safetensors.numpy import load_file, save

from subfl_flower.data.data_facts import ReadingSettings
from subfl_flower.data.datasets.custom_settings import GraphColumns
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.errors import SubflError
from subfl_flower.storage.tensor_file import MODEL_FILE
from subfl_flower.subgraphs.models.exported import ExportedModel, read_model
from subfl_flower.tasks.choices import LinkPrediction

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TRANSFORM = FeatureTransform(
    columns=("age", "city"), one_hot={"city": ("a", "b")}, mean=(50.0, 0.0, 0.0), scale=(10.0, 1.0, 1.0)
)
CARD = toy_card(
    run="2026-01-01",
    round=12,
    validation=0.75,
    classes=("died", "home"),
    transform=TRANSFORM,
    data="ab" * 32,
    reading=ReadingSettings(encoding="latin-1", columns=GraphColumns(id="patient"), missing=("NA",)),
)
SHAPES = {
    "conv1.weight": (3, 4),
    "conv1.bias": (4,),
    "conv2.weight": (4, 4),
    "conv2.bias": (4,),
    "classifier.weight": (4, 2),
    "classifier.bias": (2,),
}


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SubflError) as found:
        read_model(path)
    assert all(word in str(found.value) for word in words), str(found.value)


def written(path: Path, content: dict[str, np.ndarray], card: str | None) -> Path:
    path.write_bytes(save(content, None if card is None else {"card": card}))
    return path


def test_a_model_comes_back_from_its_folder_and_from_its_file(tmp_path: Path) -> None:
    expected = tensors()
    transposed = expected | {"conv2.weight": np.asfortranarray(expected["conv2.weight"])}
    ExportedModel(transposed, CARD).write_with_card(tmp_path / "runs" / "model" / MODEL_FILE)
    for path in (tmp_path / "runs" / "model", tmp_path / "runs" / "model" / "model.safetensors"):
        found, card = read_model(path)
        assert card == CARD and set(found) == set(SHAPES)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
    said = json.loads((tmp_path / "runs" / "model" / "model.json").read_text())
    with safe_open(tmp_path / "runs" / "model" / "model.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["card"]) == said
    assert said == {
        "kind": "graph_model", "schema": 2, "dataset": "toy", "client": 7, "method": "fedpub",
        "run": "2026-01-01", "round": 12,
        "num_features": 3, "num_classes": 2, "validation": 0.75, "mended": False,
        "model": {"name": "gcn", "hidden": 4, "layers": 2, "dropout": 0.5},
        "task": {
            "name": "node_classification", "metric": "accuracy", "figures": [], "batch_size": None, "neighbours": 20,
        },
        "classes": ["died", "home"], "transform": json.loads(TRANSFORM.model_dump_json()), "data": "ab" * 32,
        "reading": {
            "encoding": "latin-1", "unlabelled": None, "edge_weights": "ignore", "missing": ["NA"],
            "columns": {"id": "patient", "label": None, "source": None, "target": None, "weight": None},
        },
    }  # fmt: skip


def test_a_link_predictor_is_as_wide_as_its_task_says(tmp_path: Path) -> None:
    task = LinkPrediction(name="link_prediction", dimensions=5)
    card = CARD.model_copy(update={"task": task, "num_classes": 0, "classes": None})
    wide = tensors() | {"classifier.weight": np.ones((4, 5), np.float32), "classifier.bias": np.ones(5, np.float32)}
    ExportedModel(wide, card).write_with_card(tmp_path / MODEL_FILE)
    assert read_model(tmp_path)[1].task == task
    with pytest.raises(SubflError, match=r"classifier.weight is float32 \[4, 2\], not float32 \[4, 5\]"):
        ExportedModel(tensors(), card).write_with_card(tmp_path / MODEL_FILE)


def test_a_failure_leaves_the_earlier_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ExportedModel(tensors(1), CARD).write_with_card(tmp_path / MODEL_FILE)

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(
            SubflError, match=r"a model of a graph cannot be written to .*/model.safetensors: No space left on device"
        ):
            ExportedModel(tensors(2), CARD).write_with_card(tmp_path / MODEL_FILE)
    np.testing.assert_array_equal(read_model(tmp_path)[0]["conv1.weight"], tensors(1)["conv1.weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conv1.weight": np.ones((5, 4), np.float32)}, ["conv1.weight is float32 [5, 4], not float32 [3, 4]"]),
        ({"conv1.bias": np.ones(4)}, ["conv1.bias is float64"]),
        ({"conv2.bias": np.array([0, 0, np.nan, 0], np.float32)}, ["conv2.bias holds values that are not finite"]),
        ({"conv3.weight": np.ones((4, 4), np.float32)}, ["holds 7 tensors; a GCN of 2 layers has 6"]),
    ],
)
def test_tensors_that_are_not_the_cards_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray], words: list[str]
) -> None:
    refused(written(tmp_path / "m.safetensors", tensors() | change, CARD.as_json()), "m.safetensors", *words)
    with pytest.raises(SubflError):
        ExportedModel(tensors() | change, CARD).write_with_card(tmp_path / "model" / MODEL_FILE)
    assert not (tmp_path / "model").exists()


def test_another_name_is_refused(tmp_path: Path) -> None:
    renamed = tensors()
    renamed["head.bias"] = renamed.pop("classifier.bias")
    refused(written(tmp_path / "m.safetensors", renamed, CARD.as_json()), "holds no classifier.bias")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (None, ["does not hold a model of a graph: it does not say what it is (no 'card'", "train again"]),
        ("not JSON", ["card: Invalid JSON"]),
        (
            CARD.as_json().replace('"schema":2', '"schema":3'),
            ["a newer version wrote it (schema 3, this version reads the schema 2)"],
        ),
        (
            '{"kind":"graph_model","schema":1}',
            ["an older version wrote it (schema 1, this version reads the schema 2)", "train again"],
        ),
        (CARD.as_json().replace('"home"', '"died"'), ["classes must be 2 different names"]),
        (CARD.as_json().replace('"home"', '"home","icu"'), ["classes must be 2 different names"]),
        (CARD.as_json().replace('"abab', '"ABAB'), ["card.data"]),
        (CARD.as_json().replace('"client":7', '"client":-7'), ["card.client"]),
        (CARD.as_json().replace('"name":"gcn"', '"name":"gatt"'), ["card.model.name"]),
        (CARD.as_json().replace('"layers":2', '"layers":1000000000000'), ["a GCN of 1000000000000 layers"]),
        (CARD.as_json().replace('"run":', '"walk":'), ["card.run: Field required"]),
    ],
)
def test_a_card_that_says_nothing_is_refused(tmp_path: Path, card: str | None, words: list[str]) -> None:
    refused(written(tmp_path / "m.safetensors", tensors(), card), "m.safetensors", *words)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "absent does not exist")
    refused(tmp_path, "model.safetensors does not exist")
    ExportedModel(tensors(), CARD).write_with_card(tmp_path / MODEL_FILE)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused(tmp_path, "model.safetensors does not hold a model of a graph: it is not a whole safetensors file")


@FUZZ
@given(
    changes=st.dictionaries(
        st.sampled_from(["schema", "model", "task", "num_features", "num_classes", "client", "round", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"name": "gcn"}),
    )
)
def test_any_card_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    card = json.dumps(json.loads(CARD.as_json()) | changes)
    path = written(tmp_path_factory.mktemp("fuzz") / "m.safetensors", tensors(), card)
    try:
        found, said = read_model(path)
    except SubflError:
        return
    assert {name: values.shape for name, values in found.items()} == SHAPES
    assert (said.num_features, said.num_classes, said.model.layers) == (3, 2, 2)


@FUZZ
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.none() | st.integers(0, 10**6))
def test_a_damaged_file_is_refused_or_holds_tensors_of_the_right_shapes(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, cut: int | None
) -> None:
    path = written(tmp_path_factory.mktemp("fuzz") / "m.safetensors", tensors(), CARD.as_json())
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content if cut is None else content[: cut % len(content)])
    try:
        found, _ = read_model(path)
    except SubflError:
        return
    assert cut is None and {name: values.shape for name, values in found.items()} == SHAPES
    assert set(load_file(path)) == set(SHAPES)


def test_a_card_says_whether_the_graph_was_mended(tmp_path: Path) -> None:
    ExportedModel(tensors(), CARD).write_with_card(tmp_path / "plain" / MODEL_FILE)
    ExportedModel(tensors(), CARD.model_copy(update={"mended": True})).write_with_card(tmp_path / "mended" / MODEL_FILE)
    texts = {name: (tmp_path / name / "model.json").read_text() for name in ("plain", "mended")}
    assert [json.loads(texts[name])["mended"] for name in ("plain", "mended")] == [False, True]
    assert [read_model(tmp_path / name)[1].mended for name in ("plain", "mended")] == [False, True]
