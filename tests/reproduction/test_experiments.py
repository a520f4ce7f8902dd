"""The experiments of `conf/experiment`: every point of a sweep is a run that can be carried out."""

from __future__ import annotations

import pytest
from experiment_points import points

from subfl_flower.catalogue.groups import choices
from subfl_flower.composition import composed_config

PAPERS_METHODS = "local,fedavg,fedprox,fedper,gcfl,fedgnn_subgraph,fedsage_plus,fedpub"
SEARCHED = {"search"}
"""Experiments whose values a sweeper chooses."""


@pytest.mark.parametrize("name", sorted(choices("experiment").keys() - SEARCHED))
def test_every_point_of_a_sweep_composes(name: str) -> None:
    for overrides in points(name):
        config, _ = composed_config(overrides)  # loads the classes that are named, too
        for each in overrides:
            key, _, value = each.partition("=")
            if key in ("method", "dataset", "partition"):
                assert getattr(config, key).name == value


def test_the_papers_settings_are_pinned() -> None:
    config, _ = composed_config(["+experiment=protocol_printed", "method=fedpub", "dataset=cora"])
    pinned = {"tau": "auto", "mask_l1": 5e-6, "mask_threshold": 0.7, "missing": "owners", "weight_decay": 0}
    assert pinned.items() <= config.method.knobs.items()
    assert config.dataset.model_dump()["row_normalize"] is True
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.model.hidden) == (0.01, 1e-6, 128)
    arxiv, _ = composed_config(["+experiment=protocol_printed", "method=fedavg", "dataset=ogbn_arxiv"])
    assert arxiv.dataset.model_dump()["row_normalize"] is False


@pytest.mark.parametrize("method", ["local", "fedavg", "fedper", "subpfed", "fedpub"])
def test_strong_baselines_keep_features_and_weights(method: str) -> None:
    config, _ = composed_config(["+experiment=[fedpub_table2,strong_subgraphs]", f"method={method}", "dataset=photo"])
    assert config.dataset.model_dump()["row_normalize"] is False and config.optimizer.weight_decay == 0
    assert config.method.knobs.get("weight_decay", 0) == 0


def test_two_experiments_together_have_the_values_of_both() -> None:
    from subfl_flower.front.arguments import experiment_axes

    both = experiment_axes(["+experiment=[fedpub_table2,strong_subgraphs]"])
    assert both == {"method": PAPERS_METHODS, "partition.clients": "5,10,20", "seed": "0,1,2"}
