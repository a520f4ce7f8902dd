"""Rows of the item table that users ask for: which these are, and that training on them is training on the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rated_users import ITEMS, LENGTHS, hosting, normalised, random_model, to_all, worked

from subfl_flower.clients.recommendation.fedgnn import FedGNNClient
from subfl_flower.wire.batch import Batch, Question
from subfl_flower.wire.ragged import Ragged

EVERYONE = range(len(LENGTHS))


def fedgnn(**more: Any) -> FedGNNClient:
    client: FedGNNClient = hosting(FedGNNClient, **{"gnn": "gcn", "pseudo_items": 0, **more})
    return client


def asked_for(client: FedGNNClient) -> dict[int, np.ndarray]:
    answers = client.answer(Question("rows", {user: {} for user in client.cohort.client_ids}))
    assert answers.failures == {}
    return {user: arrays["item_ids"] for user, arrays in answers.arrays.items()}


def with_rows(model: dict[str, np.ndarray], wanted: dict[int, np.ndarray]) -> Batch:
    """The orders of all users, each with the rows that it wants in place of the table."""
    shared = {name: value for name, value in model.items() if name != "items"}
    lengths = np.array([len(ids) for ids in wanted.values()], dtype=np.int64)
    rows = Ragged(model["items"][np.concatenate(list(wanted.values()))], lengths)
    return replace(to_all(list(wanted), shared), rows={"item_rows": rows})


def test_users_ask_for_the_items_that_they_rated_and_their_pseudo_items() -> None:
    plain, hidden = asked_for(fedgnn()), asked_for(fedgnn(pseudo_items=4))
    for user in EVERYONE:
        rated, _ = normalised(user)
        assert plain[user].dtype == np.int32 and plain[user].tolist() == rated.tolist()
        assert set(rated) < set(hidden[user]) and (np.diff(hidden[user]) > 0).all()
        assert len(hidden[user]) == len(rated) + 4
    everything = asked_for(fedgnn(pseudo_items="all"))
    assert all(ids.tolist() == list(range(ITEMS)) for ids in everything.values())


@pytest.mark.parametrize("pseudo_items", [0, 4, "all"])
@pytest.mark.parametrize("chunk", [2, "all"])
def test_uploads_are_those_from_the_whole_table(pseudo_items: Any, chunk: Any) -> None:
    by_rows, by_table = (fedgnn(pseudo_items=pseudo_items, chunk=chunk) for _ in range(2))
    model = random_model(by_rows.model.shapes)
    wanted = asked_for(by_rows)
    found = worked(by_rows.train(with_rows(model, wanted)))
    expected = worked(by_table.train(to_all(EVERYONE, model)))
    for name, values in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)
    for name, rows in expected.rows.items():
        np.testing.assert_array_equal(found.rows[name].values, rows.values, err_msg=name)
    for user in EVERYONE:
        assert found.rows["item_ids"].of(user).tolist() == wanted[user].tolist()


def test_other_rows_than_were_asked_for_are_refused() -> None:
    client = fedgnn()
    wanted = asked_for(client)
    result = client.train(with_rows(random_model(client.model.shapes), {**wanted, 3: wanted[3][1:]}))
    assert result.clients == (0, 1, 2, 4)
    assert "other rows of the item table than were asked for" in result.failures[3]
