"""Exported models of two extractors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model_cards import toy_card

from subfl_flower.errors import SubflError
from subfl_flower.models.settings import DecoupledSettings
from subfl_flower.storage.tensor_file import MODEL_FILE
from subfl_flower.subgraphs.models.decoupled import StackedDecoupled
from subfl_flower.subgraphs.models.exported import ExportedModel, read_model

CARD = toy_card(model=DecoupledSettings(name="decoupled", hidden=4, layers=2, encoding=6), method="fedsg")


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in CARD.gnn.shapes.items()}


def test_a_model_comes_back_with_its_network(tmp_path: Path) -> None:
    expected = tensors()
    assert len(expected) == 10 and expected["topology1.weight"].shape == (6, 4)
    ExportedModel(expected, CARD).write_with_card(tmp_path / MODEL_FILE)
    found, card = read_model(tmp_path)
    assert card == CARD and isinstance(card.gnn, StackedDecoupled)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    said = json.loads((tmp_path / "model.json").read_text())
    assert said["schema"] == 2
    assert said["model"] == {"name": "decoupled", "hidden": 4, "layers": 2, "dropout": 0.5, "encoding": 6}


def test_without_its_topology_extractor_it_is_refused(tmp_path: Path) -> None:
    of_features = {name: value for name, value in tensors().items() if not name.startswith("topology")}
    with pytest.raises(SubflError, match="holds 6 tensors; a DECOUPLED of 2 layers has 10"):
        ExportedModel(of_features, CARD).write_with_card(tmp_path / MODEL_FILE)


def test_an_encoding_of_another_width_is_refused(tmp_path: Path) -> None:
    wider = tensors() | {"topology1.weight": np.ones((8, 4), np.float32)}
    with pytest.raises(SubflError, match=r"topology1.weight is float32 \[8, 4\], not float32 \[6, 4\]"):
        ExportedModel(wider, CARD).write_with_card(tmp_path / MODEL_FILE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": 1}, "card.model.encoding"),
        ({"name": "gcn"}, "card.model.encoding"),
        ({"name": "x"}, "card.model.name"),
    ],
)
def test_what_is_wrong_with_a_card_is_said_by_the_key_that_is_in_it(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    from safetensors.numpy import save

    said = json.loads(CARD.as_json())
    said["model"] |= changes
    (tmp_path / "m.safetensors").write_bytes(save(tensors(), {"card": json.dumps(said)}))
    with pytest.raises(SubflError, match=f"m.safetensors: {words}: "):
        read_model(tmp_path / "m.safetensors")
