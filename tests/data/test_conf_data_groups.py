from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from subfl_flower.data.datasets import Dataset
from subfl_flower.data.partitions import Partition

CONF = Path(__file__).parents[2] / "conf"
MANDATORY = {
    "given": {"file": "partition.npz"},
    "custom": {"path": "graph.pt"},
    "custom_ratings": {"path": "ratings.csv"},
}
GRAPHS = "citeseer computers cora custom digits ogbn_arxiv photo pubmed sbm"
RATINGS = "custom_ratings douban flixster ml100k ml10m ml1m synthetic_ratings yahoo_music"
PARTITIONS = "dirichlet given imbalanced louvain metis overlap_rate overlapping random users whole"
FOR_RATINGS = [
    {"override /partition@_global_.partition": "users"},
    {"override /task@_global_.task": "rating_prediction"},
    {"override /model@_global_.model": "recommender"},
    "_self_",
]


@pytest.mark.parametrize(
    ("group", "names", "settings"),
    [
        ("dataset", f"{GRAPHS} {RATINGS}", Dataset),
        ("partition", PARTITIONS, Partition),
    ],
)
def test_every_file_states_every_key_with_the_models_default(group: str, names: str, settings: object) -> None:
    files = sorted((CONF / group).glob("*.yaml"))
    assert [file.stem for file in files] == sorted(names.split())
    for file in files:
        assert file.read_text().startswith("# subfl ") and f"{group}={file.stem}" in file.read_text().splitlines()[0]
        written = yaml.safe_load(file.read_text())
        chosen_with_it = written.pop("defaults", [])
        mandatory = MANDATORY.get(file.stem, {})
        model = TypeAdapter(settings).validate_python(written | mandatory)
        assert model.name == file.stem
        assert list(written) and set(written) == set(type(model).model_fields)
        assert model == type(model)(**mandatory)
        assert chosen_with_it == (FOR_RATINGS if file.stem in RATINGS.split() else [])
