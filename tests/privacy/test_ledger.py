from __future__ import annotations

import json
from pathlib import Path

import dp_accounting
import pytest

from subfl_flower.errors import SubflError
from subfl_flower.privacy.ledger import DELTA, LEDGER_FILE, PrivacyLedger
from subfl_flower.privacy.mechanism import LdpSettings

NORMAL = LdpSettings(mechanism="gaussian_l2", clip=1.0, noise_multiplier=4.0)
LAPLACE = LdpSettings(mechanism="laplace_l1", clip=2.0, epsilon=0.05)
VALUES = LdpSettings(mechanism="laplace_linf", clip=0.1, epsilon=0.01)


def library(*events: dp_accounting.DpEvent) -> float:
    accountant = dp_accounting.rdp.RdpAccountant()
    for event in events:
        accountant.compose(event)
    return float(accountant.get_epsilon(DELTA))


def test_uploads_of_all_runs_and_mechanisms_are_composed(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path / "client")
    normal, laplace = dp_accounting.GaussianDpEvent(4.0), dp_accounting.LaplaceDpEvent(1 / 0.05)
    assert ledger.spent("a") == 0
    for _ in range(3):
        ledger.spend("one", "a", NORMAL, 100)
    spent = PrivacyLedger(tmp_path / "client").spend("two", "a", NORMAL, 100)
    assert spent == pytest.approx(library(dp_accounting.SelfComposedDpEvent(normal, 4)), rel=1e-2)
    for _ in range(40):
        spent = ledger.spend("two", "a", LAPLACE, 100)
    together = library(dp_accounting.SelfComposedDpEvent(normal, 4), dp_accounting.SelfComposedDpEvent(laplace, 40))
    assert spent == pytest.approx(together, rel=2e-2)
    entries = json.loads((tmp_path / "client" / LEDGER_FILE).read_text())["entries"]
    assert [entry["uploads"] for entry in entries] == [3, 1, 40]


def test_values_that_are_clipped_alone_count_each(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    value = dp_accounting.LaplaceDpEvent(1 / 0.01)
    for most, count in ((70, 70), (90, 180)):  # both uploads count as the larger one
        spent = ledger.spend("one", "a", VALUES, most)
        assert spent == pytest.approx(library(dp_accounting.SelfComposedDpEvent(value, count)), rel=2e-2)


def test_attack_a_second_run_does_not_start_at_zero(tmp_path: Path) -> None:
    """A server that opens run after run spends one budget; the upload that would exceed it does not leave."""
    uploads = 0
    with pytest.raises(SubflError, match=r"allows these data epsilon 3 at delta 1e-05 over all runs; 2\.\d+ is spent"):
        for run in range(1000):
            PrivacyLedger(tmp_path, 3.0).spend(f"run-{run}", "a", NORMAL, 10)
            uploads += 1
    assert 3 <= uploads < 20 and PrivacyLedger(tmp_path, 3.0).spent("a") <= 3.0
    with pytest.raises(SubflError, match="is spent"):
        PrivacyLedger(tmp_path, 3.0).spend("another", "a", NORMAL, 10)
    assert PrivacyLedger(tmp_path, 3.0).spend("another", "other data", NORMAL, 10) < 3.0


def test_uploads_without_a_bound_are_refused_where_there_is_a_limit(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"privacy\.mechanism=none does not protect"):
        PrivacyLedger(tmp_path, 3.0).require_protection("none", False)
    PrivacyLedger(tmp_path, 3.0).require_protection("laplace_l1", True)
    PrivacyLedger(tmp_path).require_protection("none", False)


def test_a_ledger_that_cannot_be_read_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).write_text("{")
    with pytest.raises(SubflError, match="cannot tell how much"):
        PrivacyLedger(tmp_path).spend("one", "a", NORMAL, 1)
    assert (tmp_path / LEDGER_FILE).read_text() == "{"
