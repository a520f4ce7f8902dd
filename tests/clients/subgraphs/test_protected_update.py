from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_clients import cohort_of, family_of, parameters_of, tiny_client, trained

from subfl_flower.clients.subgraphs.description import EMBEDDING
from subfl_flower.clients.subgraphs.fedper import FedPerClient
from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.protected_update import COSINE, ProtectedUpdate
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.errors import SubflError
from subfl_flower.privacy.accountant import user_level_epsilon
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.privacy.secure_sum import quantise, unmask_sum
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Batch, Result

GRAPHS = (tiny_client(0, 30), tiny_client(1, 40, lacking=(2,)), tiny_client(2, 25))
FAINT = LdpSettings(mechanism="gaussian_l2", clip=0.25, noise_multiplier=1e-4)
LOUD = LdpSettings(mechanism="gaussian_l2", clip=0.25, noise_multiplier=50.0)


def nobody() -> Any:
    """Stands for the whole graph of a simulation."""
    raise AssertionError("nobody asks for the whole graph")


def client(
    privacy: LdpSettings | None, family: type[SubgraphClient] = SubgraphClient, *, simulated: bool = True, **knobs: Any
) -> SubgraphClient:
    cohort = replace(cohort_of(*GRAPHS), whole=nobody if simulated else None)
    facts = {} if privacy is None else {"privacy": privacy}
    return family_of(family, cohort, knobs, **facts)


def change(result: Result, sent: Stack) -> np.ndarray:
    """The change of all uploaded parameters of each client, [clients, values]."""
    parts = [(np.asarray(result.arrays[name]) - sent[name]).reshape(len(result.clients), -1) for name in sent]
    return np.concatenate(parts, axis=1).astype(np.float64)


def test_the_change_of_all_parameters_is_clipped_together() -> None:
    sent = parameters_of(3)
    true = change(trained(client(None), sent, epochs=5), sent)
    lengths = np.linalg.norm(true, axis=1, keepdims=True)
    assert (lengths > FAINT.clip).all()
    faint = change(trained(client(FAINT), sent, epochs=5), sent)
    np.testing.assert_allclose(faint, true * FAINT.clip / lengths, atol=8 * FAINT.noise_scale)


def test_every_value_gets_noise_of_its_own_client_and_round() -> None:
    sent = parameters_of(3)
    one, again, later = (change(trained(client(LOUD), sent, server_round=r), sent) for r in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    for noise in (one, later):
        assert stats.kstest(noise.ravel(), stats.norm(scale=LOUD.noise_scale).cdf).pvalue > 1e-3
    correlations = np.corrcoef(np.concatenate([one, later]))[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / math.sqrt(one.shape[1])


def test_where_clients_data_are_apart_noise_is_never_the_same_and_no_cosine_is_told() -> None:
    sent = parameters_of(3)
    results = [trained(client(LOUD, simulated=False), sent) for _ in range(2)]
    assert not np.array_equal(change(results[0], sent), change(results[1], sent))
    assert COSINE not in results[0].metrics


def test_cosines_are_those_with_the_true_change() -> None:
    sent = parameters_of(3)
    protected = trained(client(LdpSettings(mechanism="gaussian_l2", clip=0.25, noise_multiplier=0.05)), sent)
    true, noisy = change(trained(client(None), sent), sent), change(protected, sent)
    expected = (true * noisy).sum(1) / np.linalg.norm(true, axis=1) / np.linalg.norm(noisy, axis=1)
    np.testing.assert_allclose(protected.metrics[COSINE], expected, rtol=1e-4)
    assert 0.1 < expected.min() < expected.max() < 0.9


def test_a_protected_client_tells_no_loss_and_keeps_its_own_layers() -> None:
    sent = {name: value for name, value in parameters_of(3).items() if not name.startswith("classifier")}
    result = trained(client(LOUD, FedPerClient, personal_layers=("classifier",)), sent)
    assert set(result.arrays) == set(sent) and "train_loss" not in result.metrics
    assert "train_loss" in trained(client(None, FedPerClient, personal_layers=("classifier",)), sent).metrics


@pytest.mark.parametrize("personal", [(), ("classifier",)])
def test_an_embedding_is_that_of_the_protected_parameters(personal: tuple[str, ...]) -> None:
    """Known to whoever has the upload; personal layers and masks have no part in it."""
    sent = {name: value for name, value in parameters_of(3).items() if name.split(".")[0] not in personal}
    family = client(LOUD, FedPUBClient, personal_layers=personal)
    result = trained(family, sent)
    known = {name: np.broadcast_to(value, (3, *value.shape)) for name, value in family.run.initial.items()}
    model = {name: torch.from_numpy(np.array(result.arrays.get(name, known[name]))) for name in known}
    (description,) = family.describes()
    batch = Batch.of_stack((0, 1, 2), sent)
    embedding = description.of(model, family.graph_chunk([0, 1, 2]), batch)[EMBEDDING]
    np.testing.assert_allclose(result.arrays[EMBEDDING], embedding, rtol=1e-5)


def test_rows_of_absent_features_travel_with_noise() -> None:
    """A client's rows of a feature that it does not have are no longer those that it was sent."""
    sent = parameters_of(3)
    result = trained(client(LOUD, FedPUBClient), sent)
    assert (np.asarray(result.arrays["conv1.weight"])[1, 2] != sent["conv1.weight"][1, 2]).all()
    plain = trained(client(None, FedPUBClient, absent_features="send"), sent)
    np.testing.assert_array_equal(np.asarray(plain.arrays["conv1.weight"])[1, 2], sent["conv1.weight"][1, 2])


def test_what_is_pruned_counts_as_unchanged() -> None:
    cohort = replace(cohort_of(GRAPHS[0]), whole=nobody)
    protection = ProtectedUpdate(FAINT, ["weight", "bias"], cohort, 0)
    sent = {"weight": np.full((1, 2, 2), 5.0, np.float32), "bias": np.full((1, 2), 5.0, np.float32)}
    trained_to = {"weight": torch.tensor([[[0.0, 5.1], [5.0, 5.0]]]), "bias": torch.tensor([[4.9, 5.0]])}
    found, _ = protection.of(trained_to, Batch.of_stack((0,), sent))
    np.testing.assert_allclose(found["weight"], [[[5.0, 5.1], [5.0, 5.0]]], atol=1e-3)
    np.testing.assert_allclose(found["bias"], [[4.9, 5.0]], atol=1e-3)


def test_attack_two_states_of_a_clients_data_are_told_apart_no_more_often_than_epsilon_allows() -> None:
    """The attacker knows both changes that a client may have made, as far apart as clipping lets them be.

    Its test is the best one, the likelihood ratio. The odds that a test within epsilon fails by chance are 1 in 1,000.
    """
    settings = LdpSettings(mechanism="gaussian_l2", clip=1.0, noise_multiplier=1.0)
    trials, values = 400, 50
    epsilon = user_level_epsilon(settings, 1, settings.delta)
    cohort = replace(cohort_of(GRAPHS[0]), whole=None)
    rng = np.random.default_rng(0)
    sent = {"weight": rng.standard_normal((1, values)).astype(np.float32)}
    direction = rng.standard_normal((1, values)).astype(np.float32)
    candidates = [sent["weight"] + 40 * direction, sent["weight"] - 40 * direction]
    protection = ProtectedUpdate(settings, ["weight"], cohort, 0)
    right = 0
    for trial in range(trials):
        truth = int(rng.integers(2))
        upload = {"weight": torch.from_numpy(candidates[truth])}
        seen, _ = protection.of(upload, Batch.of_stack((0,), sent, server_round=trial))
        right += int(((seen["weight"].numpy() - sent["weight"]) * direction).sum() < 0) == truth
    allowed = stats.norm.cdf(0.5)  # of two normal laws one deviation apart, which epsilon bounds
    assert allowed <= (math.exp(epsilon) + settings.delta) / (1 + math.exp(epsilon))
    assert right <= stats.binom.ppf(0.999, trials, allowed)


# In a sum -------------------------------------------------------------------------------------------------------------

SHARED = LdpSettings(mechanism="gaussian_l2", clip=0.25, noise_multiplier=4.0, in_sum=True)
SUMS = SecureSumSettings(enabled=True, min_clients=3)


def summing(seed: int = 0) -> SubgraphClient:
    cohort = replace(cohort_of(*GRAPHS), whole=nobody)
    return family_of(FedAvgClient, cohort, {"weighting": "uniform"}, privacy=SHARED, secure_sums=SUMS, seed=seed)


class FedAvgClient(SubgraphClient):
    """Clients of FedAvg, with its strategy's knob."""

    Settings = FedAvg.Settings


def test_a_sum_is_a_known_number_plus_the_protected_changes_exactly() -> None:
    """In the sum's fixed-point numbers, so that no rounding of one client's upload is seen in it."""
    sent = {name: np.broadcast_to(value[:1], value.shape) for name, value in parameters_of(3).items()}
    family = summing()
    result = trained(family, sent)
    total = {name: np.zeros(values.shape[1:], dtype=np.uint64) for name, values in sent.items()}
    for row in range(3):
        parts = family.summands(result, row)
        for name in sent:
            own = quantise(np.asarray(parts[name]).reshape(-1), SUMS.fraction_bits)
            total[name] = total[name] + own.astype(np.uint64).reshape(total[name].shape)
    grid = SHARED.share_of(3).grid
    assert grid is not None
    for name in sent:
        known = np.round(sent[name][0].astype(np.float64) * 2**SUMS.fraction_bits) / 2**SUMS.fraction_bits
        changes = unmask_sum(total[name].reshape(-1), SUMS.fraction_bits).reshape(known.shape) - 3 * known
        assert np.array_equal(changes / grid.spacing, np.round(changes / grid.spacing))
    noise = np.concatenate([(np.asarray(result.arrays[name]).sum(0) - 3 * sent[name][0]).ravel() for name in sent])
    assert noise.std() == pytest.approx(SHARED.noise_scale, rel=0.15)  # of all three together, and not of each


def test_a_grid_that_the_sums_numbers_cannot_hold_is_refused() -> None:
    coarse = SUMS.model_copy(update={"fraction_bits": 8})
    with pytest.raises(SubflError, match=r"secure_sums\.fraction_bits: .* needs 1\d bits \(found 8\)"):
        family_of(
            FedAvgClient,
            replace(cohort_of(*GRAPHS), whole=nobody),
            {"weighting": "uniform"},
            privacy=SHARED,
            secure_sums=coarse,
        )
