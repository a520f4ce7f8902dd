"""Settings that count with a certain choice alone, and what counts before them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from subfl_flower.cli import main
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory


def test_they_count_with_their_choice_alone() -> None:
    asked = ["+only_for.method.fedavg.optimizer.lr=0.5", "+only_for.dataset.digits.dataset.neighbours=9"]
    with_both = composed_config(["method=fedavg", "dataset=digits", *asked])[0]
    assert (with_both.optimizer.lr, with_both.dataset.model_dump()["neighbours"]) == (0.5, 9)
    with_neither = composed_config(["method=fedper", "dataset=cora", *asked])[0]
    assert with_neither.optimizer.lr == 0.01 and "neighbours" not in with_neither.dataset.model_dump()


def test_the_command_line_counts_before_them() -> None:
    asked = ["method=fedpub", "+only_for.method.fedpub.method.tau=7", "+only_for.method.fedpub.method.mask_l1=1"]
    knobs = composed_config([*asked, "method.tau=2"])[0].method.knobs
    assert (knobs["tau"], knobs["mask_l1"]) == (2, 1)


def test_values_of_an_experiments_axis_count_before_those_of_another_experiment() -> None:
    asked = ["+experiment=[fedpub_table10,protocol_printed]", "method=fedpub"]
    assert composed_config(asked)[0].method.knobs["similarity"] == "functional"
    of_axis = composed_config([*asked, "only_for.method.fedpub.method.similarity=label"])[0].method.knobs
    assert (of_axis["similarity"], of_axis["mask_threshold"]) == ("label", 0.7)


def test_they_leave_no_trace_in_the_configuration_of_a_run() -> None:
    config = composed_config(["method=fedpub", "+only_for.method.fedpub.method.tau=7"])[0]
    assert config == composed_config(["method=fedpub", "method.tau=7"])[0]


def test_a_sweep_reads_them_from_its_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.chdir(tmp_path)
    small = ("dataset=digits", "model.hidden=8", "partition.clients=3", "federation.rounds=1", "seed=0")
    axes = ("method=local,fedpub", "dataset.row_normalize=true", "optimizer.weight_decay=1e-6")
    with pytest.raises(SystemExit) as ended:
        main(["-m", "+experiment=why_tables_disagree", *small, *axes, "hydra.sweep.dir=sweep"])
    assert not ended.value.code
    (fedpub,) = (tmp_path / "sweep").glob("fedpub-*")
    (local,) = (tmp_path / "sweep").glob("local-*")
    assert RunDirectory(fedpub).config()["method"]["weight_decay"] is None  # shipped: 0
    assert "weight_decay" not in RunDirectory(local).config()["method"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("only_for=3", "only_for: must be settings by group and choice, "),
        ("+only_for.method=3", "only_for.method: must be settings by group and choice, "),
        ("+only_for.methd.fedpub.method.tau=3", "only_for.methd: there is no such group; did you mean method"),
        (
            "+only_for.method.fedpubb.method.tau=3",
            "only_for.method.fedpubb: there is no such choice; did you mean fedpub",
        ),
        ("+only_for.method.fedpub={method.tau:3}", "only_for.method.fedpub.method.tau: sections are nested here"),
        ("+only_for.method.fedpub.method.tauu=3", "method.tauu: method 'fedpub' has no such setting"),
    ],
)
def test_what_cannot_be_is_refused(override: str, sentence: str) -> None:
    with pytest.raises(SubflError) as refused:
        composed_config(["method=fedpub", override])
    assert str(refused.value).startswith(sentence)
