"""The descriptions of choices are those of their YAML files."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from subfl_flower.catalogue.groups import GROUPS, choices, override_of
from subfl_flower.catalogue.sheet import FACTS, Setting, Sheet
from subfl_flower.catalogue.suggestions import did_you_mean, nearest
from subfl_flower.composition import composed_config

TEXT = """\
# @package _global_
# subfl method=ring dataset=cora
# A ring of clients (Fig. 2 of the paper). Models go
# around it.
# Source: Nobody, 1999
# Cost: nothing
# subfl method=ring method.keep=1
defaults:
  - base
  - override /dataset@_global_.dataset: cora
  - _self_
name: ring
strategy: a.B
# Share that a client
# keeps.
keep: 0.5     
deep:
  first: [1, 2]  # a list
  second: ${seed}
hydra:
  sweeper:
    params:
      seed: 0,1
"""


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    (tmp_path / "base.yaml").write_text("name: base\n# Below.\nkeep: 1\nother: x\n")
    (tmp_path / "ring.yaml").write_text(TEXT)
    return Sheet(tmp_path / "ring.yaml")


def test_the_opening_comment_is_parted_into_commands_prose_and_facts(sheet: Sheet) -> None:
    assert sheet.examples == ["subfl method=ring dataset=cora", "subfl method=ring method.keep=1"]
    assert sheet.description == "A ring of clients (Fig. 2 of the paper). Models go around it."
    assert sheet.summary == "A ring of clients (Fig. 2 of the paper)."
    assert sheet.facts == {"Source": "Nobody, 1999", "Cost": "nothing"}


def test_settings_have_their_comments_and_come_after_those_they_extend(sheet: Sheet) -> None:
    assert sheet.settings == [
        Setting("keep", "0.5", "Share that a client keeps."),
        Setting("other", "x", ""),
        Setting("deep.first", "[1, 2]", "a list"),
        Setting("deep.second", "${seed}", ""),
    ]


def test_choices_of_other_groups_and_sweeps_are_known(sheet: Sheet) -> None:
    assert sheet.chosen == {"dataset": "cora"} and sheet.sweep == {"seed": "0,1"}


def test_every_method_states_its_source_or_page_and_what_it_sends_and_costs() -> None:
    for name, sheet in choices("method").items():
        wanted = set(FACTS) - {"Needs"} - ({"Source"} if name == "local" else set())
        assert wanted <= sheet.facts.keys(), name
        for page in [word for word in sheet.facts.get("Source", "").replace(",", " ").split() if "docs/" in word]:
            assert (Path(__file__).parents[2] / page.partition("#")[0]).is_file(), (name, page)


@pytest.mark.parametrize("group", GROUPS.values())
def test_every_choice_has_a_summary_of_one_line(group: str) -> None:
    for name, sheet in choices(group).items():
        assert 10 < len(sheet.summary) <= 240, name


def test_settings_are_those_of_the_composed_configuration() -> None:
    for name in ("fedpub", "fedpub_released", "gcfl_plus", "subpfed"):
        knobs = composed_config([f"method={name}"])[0].method.knobs
        assert {setting.key for setting in choices("method")[name].settings} == set(knobs)
        for setting in choices("method")[name].settings:
            assert OmegaConf.create(f"value: {setting.value}").value == knobs[setting.key]


FOR_ANY_DATA = {"joblib", "protocol_printed", "search", "strong_subgraphs", "client_privacy_many"}
"""Experiments that show a plugin of Hydra, are added to others, or make their own graph."""


@pytest.mark.parametrize("name", sorted(choices("experiment").keys() - FOR_ANY_DATA))
def test_an_experiment_never_falls_back_on_the_data_set_of_a_first_try(name: str) -> None:
    sheet = choices("experiment")[name]
    assert sheet.chosen["dataset"] not in ("digits", "sbm", "synthetic_ratings")
    config, _ = composed_config([override_of("experiment", name)])
    assert config.dataset.name == sheet.chosen["dataset"]
    other = "photo" if config.dataset.kind == "graph" else "ml1m"
    assert composed_config([override_of("experiment", name), f"dataset={other}"])[0].dataset.name == other


@pytest.mark.parametrize(
    ("word", "found"), [("fedpubb", "fedpub"), ("FEDPUB", "fedpub"), ("subpfd", "subpfed"), ("cora", None), ("", None)]
)
def test_the_nearest_word_is_one_that_is_alike(word: str, found: str | None) -> None:
    assert nearest(word, ["fedavg", "fedpub", "subpfed"]) == found


def test_a_suggestion_ends_a_sentence_or_is_nothing() -> None:
    assert did_you_mean("sed", ["seed", "data"], "a.{}") == "; did you mean a.seed?"
    assert did_you_mean("xyz", ["seed", "data"]) == ""
