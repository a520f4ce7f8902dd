"""Lists of choices: all of them, read from YAML files without slow libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from test_import import loaded_by

from subfl_flower import SubflError, datasets, methods

CONF = Path(__file__).parents[2] / "conf"


def test_lists_hold_every_choice_with_its_settings() -> None:
    assert methods().names == sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
    assert datasets().names == sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    written = yaml.safe_load((CONF / "method" / "fedprox.yaml").read_text())
    stated = {setting.key: yaml.safe_load(setting.value) for setting in methods()["fedprox"].settings}
    assert stated == {key: written[key] for key in stated} and stated
    assert methods()[0].name == methods().names[0] and len(methods()[:3]) == 3


def test_what_a_list_looks_like() -> None:
    lines = repr(methods()).splitlines()
    assert [line.split()[0] for line in lines] == methods().names
    page = methods()._repr_html_()
    assert page.count("<tr>") == len(lines) + 1 and "<script" not in page


def test_choices_in_the_working_directory_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "mine.yaml").write_text("# FedAvg <b>with</b> a twist. More.\nname: mine\n")
    monkeypatch.chdir(tmp_path)
    assert methods()["mine"].summary == "FedAvg <b>with</b> a twist."
    assert "FedAvg &lt;b&gt;with&lt;/b&gt; a twist." in methods()._repr_html_()
    monkeypatch.chdir("/")
    with pytest.raises(SubflError, match="method=mine: there is no such choice"):
        methods()["mine"]


def test_a_typing_error_gets_a_suggestion() -> None:
    with pytest.raises(SubflError, match=r"method=fedpup: there is no such choice.*fedpub"):
        methods()["fedpup"]


def test_lists_load_no_slow_library() -> None:
    assert loaded_by("from subfl_flower import datasets, methods; methods(), datasets(), repr(methods())") == set()
