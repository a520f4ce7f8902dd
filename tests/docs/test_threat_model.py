"""The threat model names the attacks that tests carry out, all of them, and every method."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from subfl_flower.composition import composed_config
from subfl_flower.node.run_context import run_context
from subfl_flower.registry import client_class
from subfl_flower.wire.roster import Shape

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat_model.md").read_text()


def attacks_carried_out() -> set[str]:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    return {name for path in files for name in re.findall(r"^def (test_attack_\w+)", path.read_text(), re.MULTILINE)}


def test_each_attack_is_in_the_table_and_carried_out() -> None:
    named = re.findall(r"^\| `(test_attack_\w+)` \| .+ \| .+ \|$", PAGE, re.MULTILINE)
    assert len(set(named)) == len(named) > 0
    assert set(named) == attacks_carried_out()


@pytest.fixture
def threats(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs" / "generate"), *sys.path])
    import threats  # type: ignore[import-not-found]

    return threats


@pytest.mark.parametrize(
    ("method", "read", "received"),
    [
        ("fedavg", "trained parameters", "averaged parameters"),
        ("popularity", "", ""),
        ("subpfed", "trained parameters, `functional_embedding`", "averaged parameters"),
        ("fedmf", "`masked`", "`bias`, `items`, `participants`"),
    ],
)
def test_a_row_says_what_the_contract_says(threats: object, method: str, read: str, received: str) -> None:
    config, _ = composed_config([f"method={method}"])
    contract = client_class(config.method).contract(run_context(config, Shape(100, 10), run_id=""))
    assert threats.read_by_the_server(contract) == read  # type: ignore[attr-defined]
    assert threats.received(contract) == received  # type: ignore[attr-defined]


def test_a_protection_stands_where_a_run_with_it_begins(threats: object) -> None:
    noise = {"privacy": composed_config(["method=fedgnn", "privacy=gaussian_l2"])[0].plain()["privacy"]}
    for method, accepted in (("fedgnn", True), ("fedmf", False)):
        config, _ = composed_config([f"method={method}"])
        assert threats._accepts(config, noise) is accepted, method  # type: ignore[attr-defined]
    assert not threats._accepts(config, {"no_such.section": True})  # type: ignore[attr-defined]


def test_every_protection_of_the_code_that_a_site_can_turn_on_is_named() -> None:
    options = ("--matcher-key", "--keep-embeddings", "--allow-package", "--operator-key", "--members", "--policy")
    assert [option for option in options if option not in PAGE] == []
