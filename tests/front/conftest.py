"""Tests of the Python interface begin like a program that has not adopted a folder of a user."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_adopted_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subfl_flower.code_folder._adopted", None)
