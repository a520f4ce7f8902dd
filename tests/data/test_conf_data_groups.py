from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from subfl_flower.data.datasets import Dataset
from subfl_flower.data.partitions import Partition

CONF = Path(__file__).parents[2] / "conf"
MANDATORY = {
    "given": {"file": "partition.npz"},
    "custom": {"path": "graph.pt"},
    "custom_ratings": {"path": "ratings.csv"},
}
GRAPHS = "citeseer communities computers cora custom digits ogbn_arxiv photo pubmed sbm"
RATINGS = "custom_ratings douban flixster ml100k ml10m ml1m synthetic_ratings yahoo_music"
GIVEN = "douban flixster ml100k yahoo_music"
PARTITIONS = (
    "consecutive dirichlet given imbalanced louvain metis overlap_rate overlapping random topology_skew users whole"
)
FOR_RATINGS = [
    {"override /partition@_global_.partition": "users"},
    {"override /task@_global_.task": "rating_prediction"},
    "_self_",
]
FOR_GRAPHS = {"communities": [{"override /partition@_global_.partition": "consecutive"}, "_self_"]}


def resolved(file: Path, **rest: Any) -> dict[str, Any]:
    """A group's file with its interpolations resolved, as part of a whole configuration."""
    whole = OmegaConf.create({"this": OmegaConf.load(file), **rest})
    stated = OmegaConf.to_container(whole, resolve=True)["this"]  # type: ignore[call-overload, index]
    assert isinstance(stated, dict)
    return stated


@pytest.mark.parametrize("name", RATINGS.split())
def test_a_task_that_needs_a_split_of_ratings_brings_it(name: str) -> None:
    file = CONF / "dataset" / f"{name}.yaml"
    key = "drawn_split" if name == "custom_ratings" else "split"
    assert resolved(file, task={"split": "leave_one_out"})[key] == "leave_one_out"
    assert resolved(file, task={"name": "rating_prediction"})[key] == ("given" if name in GIVEN.split() else "random")


@pytest.mark.parametrize(
    ("group", "names", "settings"),
    [
        ("dataset", f"{GRAPHS} {RATINGS}", Dataset),
        ("partition", PARTITIONS, Partition),
    ],
)
def test_every_file_states_every_key_with_the_models_default(group: str, names: str, settings: object) -> None:
    files = sorted(file for file in (CONF / group).glob("*.yaml") if file.stem != "own")  # a class of the user's
    assert [file.stem for file in files] == sorted(names.split())
    for file in files:
        assert file.read_text().startswith("# subfl ") and f"{group}={file.stem}" in file.read_text().splitlines()[0]
        written = resolved(file)
        chosen_with_it = written.pop("defaults", [])
        mandatory = MANDATORY.get(file.stem, {})
        model = TypeAdapter(settings).validate_python(written | mandatory)
        assert model.name == file.stem
        assert list(written) and set(written) == set(type(model).model_fields)
        assert model == type(model)(**mandatory)
        assert chosen_with_it == (FOR_RATINGS if file.stem in RATINGS.split() else FOR_GRAPHS.get(file.stem, []))
