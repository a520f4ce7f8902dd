"""Uploads of FedMF's users: sums that can be read, and single uploads that reveal nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rated_users import DIM, ITEMS, LENGTHS, hosting, normalised, table, to_all, worked
from scipy import stats

from subfl_flower.clients.recommendation.fedmf import FedMFClient
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.wire.batch import Result

EVERYONE = range(len(LENGTHS))
BITS = 24
VALUES = 1 + ITEMS * (DIM + 1)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "clients.key"
    path.write_bytes(bytes(range(32)))
    return path


def fedmf(ids: Sequence[int] = EVERYONE, **more: Any) -> FedMFClient:
    client: FedMFClient = hosting(FedMFClient, ids, **{"embedding_penalty": 0.1, "loss": "sum", **more})
    return client


def trained(
    client: FedMFClient, participants: Sequence[int] = EVERYONE, server_round: int = 1, attempt: int = 0, by: float = 0
) -> Result:
    bias, items = table()
    bias = bias + np.float32(by)
    told = {"participants": np.array(participants, np.int32)} if client.settings.masks else {}
    announced = {"mask_attempt": float(attempt)} if attempt else {}
    sent = {"items": items, "bias": bias, **told}
    return client.train(to_all(client.cohort.client_ids, sent, server_round, announced=announced))


def masked_uploads(client: FedMFClient, **more: Any) -> np.ndarray:
    result = worked(trained(client, **more))
    assert list(result.arrays) == ["masked"] and result.rows == {}
    uploads = result.arrays["masked"]
    assert uploads.dtype == np.uint64 and uploads.shape == (len(result.clients), VALUES)
    return uploads


def plain_sum() -> np.ndarray:
    """The sum over users of what plain uploads say, laid out as masked ones are: the bias, then the table."""
    result = worked(trained(fedmf(masks=False)))
    total = np.zeros((ITEMS, DIM + 1))
    np.add.at(total, result.rows["item_ids"].values, result.rows["item_rows"].values.astype(float))
    return np.concatenate([result.arrays["bias"].astype(float).sum(0), total.reshape(-1)])


@pytest.mark.parametrize("degree", [2, 4])
def test_the_sum_over_all_participants_is_that_of_the_gradients(key: Path, degree: int) -> None:
    uploads = masked_uploads(fedmf(key=key, mask_degree=degree))
    found = unmask_sum(uploads.sum(0, dtype=np.uint64), BITS)
    np.testing.assert_allclose(found, plain_sum(), atol=len(LENGTHS) * 2.0**-BITS, rtol=0)
    assert np.abs(found).max() > 0.1


def test_the_gradients_are_those_of_the_squared_error(key: Path) -> None:
    """By hand at the users' first embeddings, which are what the model draws."""
    client = fedmf(key=key)
    found = unmask_sum(masked_uploads(client).sum(0, dtype=np.uint64), BITS)
    bias, items = table()
    expected = np.zeros((ITEMS, DIM + 1))
    by_bias = 0.0
    for user in EVERYONE:
        rated, values = normalised(user)
        embedding = client.model.initial_user(client.seed, user)["user"].astype(float)
        errors = items[rated, :DIM] @ embedding + items[rated, DIM] + bias[0] - values
        expected[rated, :DIM] += 2 * (errors[:, None] * embedding + 0.1 * items[rated, :DIM])
        expected[rated, DIM] += 2 * errors
        by_bias += 2 * errors.sum()
    np.testing.assert_allclose(found, np.concatenate([[by_bias], expected.reshape(-1)]), atol=1e-5)


def test_users_of_several_nodes_mask_alike(key: Path) -> None:
    together = masked_uploads(fedmf(key=key))
    for ids in ([0, 2, 4], [1, 3]):
        np.testing.assert_array_equal(masked_uploads(fedmf(ids, key=key)), together[ids])
    np.testing.assert_array_equal(masked_uploads(fedmf(key=key, chunk=2)), together)


def test_one_upload_alone_tells_nothing(key: Path) -> None:
    """It is uniform, and as far from the gradient as from any other: also of a user who rated nothing."""
    client = fedmf(key=key)
    uploads = np.stack([masked_uploads(client, server_round=server_round) for server_round in range(1, 121)])
    for user in EVERYONE:
        shares = uploads[:, user].reshape(-1) / 2.0**64
        assert stats.kstest(shares, stats.uniform.cdf).pvalue > 0.001
    # Zeros are told from gradients neither by their values nor by their distribution.
    rated, _ = normalised(3)
    entries = 1 + (DIM + 1) * np.arange(ITEMS)
    others = np.setdiff1d(np.arange(ITEMS), rated)
    real, zero = (uploads[:, 3][:, entries[items]].reshape(-1) / 2.0**64 for items in (rated, others))
    assert stats.ks_2samp(real, zero).pvalue > 0.001


def test_masks_are_new_for_every_round_run_and_set_of_participants(key: Path) -> None:
    """Else the difference of two uploads would be that of the gradients: zero for a user without ratings."""
    nobody = [LENGTHS.index(0)]
    first = masked_uploads(fedmf(nobody, key=key))
    assert (masked_uploads(fedmf(nobody, key=key)) == first).all()
    assert (masked_uploads(fedmf(nobody, key=key), server_round=2) != first).all()
    assert (masked_uploads(fedmf(nobody, key=key), participants=[1, 2, 3]) != first).all()
    assert (masked_uploads(fedmf(nobody, key=key), participants=[0, 1, 2, 3]) != first).all()
    assert (masked_uploads(fedmf(nobody, key=key, run="another")) != first).all()


def test_who_is_no_participant_or_the_only_one_does_not_upload(key: Path) -> None:
    for participants, reason in (([0, 1], "client 3 one of them"), ([3], "alone would show its upload")):
        result = trained(fedmf([3], key=key), participants)
        assert result.arrays == {} and result.clients == ()
        assert reason in result.failures[3]


def test_without_the_shared_key_nobody_uploads() -> None:
    result = trained(fedmf())
    assert result.arrays == {} and len(result.failures) == len(LENGTHS)
    assert all("no shared key" in reason for reason in result.failures.values())


def test_what_is_too_large_to_be_added_up_is_refused(key: Path) -> None:
    """With 46 bits after the point values must stay below 2."""
    result = trained(fedmf(key=key, fraction_bits=46))
    assert "finite and below 2 with 46 bits" in result.failures[3]


def test_a_graph_network_is_refused() -> None:
    with pytest.raises(SubflError, match=r"model\.gnn must be none, not 'gcn': method=fedmf"):
        composed_config(["method=fedmf", "model.gnn=gcn"])


# Attacks --------------------------------------------------------------------------------------------------------------


def test_attack_two_uploads_under_the_masks_of_one_round(key: Path) -> None:
    """The server sends a second model in the same round: the difference of both uploads would have no masks."""
    client = fedmf(key=key)
    masked_uploads(client)
    again = trained(client, by=0.5)
    assert again.arrays == {} and sorted(again.failures) == list(EVERYONE)
    assert all("has made these masks before" in reason for reason in again.failures.values())


def test_attack_a_round_repeated_after_a_resume(key: Path) -> None:
    """A voided round is repeated by a server that was started again: the masks of both uploads have nothing in common.

    User 2 is missing at first, so that the sum is noise; with all masks alike, the server would subtract the uploads.
    """
    client = fedmf(key=key)
    voided = masked_uploads(client, attempt=1)
    repeated = masked_uploads(client, attempt=2, by=0.5)
    difference = (voided - repeated).view(np.int64) / 2.0**BITS
    assert np.median(np.abs(difference)) > 2.0**30  # of masks, where gradients are below a hundred
    assert trained(client, attempt=1, by=0.5).arrays == {}  # an old value does not bring old masks back
