"""Parts of users' clients in combinations that no method of the configuration has, and what Flower's FedAvg sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rated_users import (
    DIM,
    ITEMS,
    LENGTHS,
    SEED,
    UserByHand,
    hosting,
    items_of,
    normalised,
    random_model,
    ranking,
    sampled,
    table,
    to_all,
    worked,
)

from subfl_flower.clients.recommendation.bias_row import BiasRowClient
from subfl_flower.clients.recommendation.central import CentralLightGCNClient
from subfl_flower.clients.recommendation.central_mf import CentralMFClient
from subfl_flower.clients.recommendation.cluster_embeddings import ClusterEmbeddings
from subfl_flower.clients.recommendation.fcf import FCFClient
from subfl_flower.clients.recommendation.fedavg import FedAvgRatingsClient
from subfl_flower.clients.recommendation.fedgnn import FedGNNClient
from subfl_flower.clients.recommendation.fedmf import FedMFClient
from subfl_flower.clients.recommendation.mixture_of_models import MixtureOfModels
from subfl_flower.clients.recommendation.perfedrec import PerFedRecClient
from subfl_flower.clients.recommendation.popularity import PopularityClient
from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.upload_transforms import Noise, PseudoItems, SumMasks
from subfl_flower.clients.recommendation.user_settings import (
    ClusterSettings,
    GradientSettings,
    MaskSettings,
    MixtureSettings,
    PseudoItemSettings,
    StepSettings,
)
from subfl_flower.clients.recommendation.user_work import ClosedForm, GradientWork, LocalTraining
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.wire.batch import Question, Result

EVERYONE = range(len(LENGTHS))
PENALTIES = {"embedding_penalty": 0.1, "hidden_penalty": 0.05, "bias_penalty": 0.02}
BITS = 24


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "clients.key"
    path.write_bytes(bytes(range(32)))
    return path


def received() -> dict[str, np.ndarray]:
    bias, items = table()
    return {"items": items, "bias": bias}


def round_of(client: Any, model: dict[str, np.ndarray] | None = None, **told: np.ndarray) -> Result:
    return worked(client.train(to_all(client.cohort.client_ids, {**(model or received()), **told})))


def summed(uploads: np.ndarray) -> np.ndarray:
    """The sum of masked uploads as an item table behind a bias, [1 + ITEMS * (DIM + 1)]."""
    return unmask_sum(uploads.sum(0, dtype=np.uint64), BITS)


# Masks ----------------------------------------------------------------------------------------------------------------


class MaskedFCF(RecommenderClient):
    """FCF's closed form under FedMF's masks."""

    class Settings(MaskSettings):
        """Knobs of masks alone."""

    Work = ClosedForm
    Transforms = (SumMasks,)


def test_a_closed_form_under_masks_sums_to_the_gradients_at_the_solutions(key: Path) -> None:
    """Each user's ridge regression by NumPy's least squares, with a row for the penalty of every coordinate."""
    client = hosting(MaskedFCF, key=key, **PENALTIES)
    result = round_of(client, participants=np.array(EVERYONE, np.int32))
    bias, items = table()
    total, by_bias = np.zeros((ITEMS, DIM + 1)), 0.0
    for user in EVERYONE:
        rated, values = normalised(user)
        if not len(rated):
            continue
        rows = np.hstack([items[rated, :DIM], np.ones((len(rated), 1))]).astype(float)
        ridge = np.diag(np.sqrt(len(rated) * np.array([0.15] * DIM + [0.02])))
        right = np.concatenate([values - bias[0] - items[rated, DIM], np.zeros(DIM + 1)])
        *embedding, own_bias = np.linalg.lstsq(np.vstack([rows, ridge]), right, rcond=None)[0]
        errors = items[rated, :DIM] @ embedding + items[rated, DIM] + own_bias + bias[0] - values
        total[rated, :DIM] += 2 * (np.outer(errors, embedding) + 0.1 * items[rated, :DIM])
        total[rated, DIM] += 2 * (errors + 0.02 * items[rated, DIM])
        by_bias += 2 * errors.sum()
    np.testing.assert_allclose(
        summed(result.arrays["masked"]), np.concatenate([[by_bias], total.reshape(-1)]), atol=2e-5
    )
    assert np.abs(total).max() > 0.1


class MaskedGNN(RecommenderClient):
    """FedGNN's steps on a graph network, protected by noise, under FedMF's masks."""

    class Settings(MaskSettings, StepSettings):
        """Knobs of steps and masks."""

    Work = GradientWork
    Transforms = (Noise, SumMasks)


class PlainGNN(RecommenderClient):
    """A graph network whose protected uploads have no masks, for comparison."""

    class Settings(GradientSettings, StepSettings):
        """Knobs of steps."""

    Work = GradientWork
    Transforms = (Noise,)


@pytest.mark.parametrize("privacy", [LdpSettings(), LdpSettings(mechanism="laplace_linf", clip=0.05, noise=0.02)])
def test_a_graph_networks_protected_gradients_add_up_under_masks(key: Path, privacy: LdpSettings) -> None:
    knobs: dict[str, Any] = {"gnn": "gat", "user_steps": 2, "privacy": privacy}
    hidden, plain = hosting(MaskedGNN, key=key, **knobs), hosting(PlainGNN, **knobs)
    model = random_model(hidden.model.shapes)
    uploads = round_of(hidden, model, participants=np.array(EVERYONE, np.int32)).arrays["masked"]
    single = round_of(plain, model)
    rows = np.zeros((ITEMS, DIM + 1))
    np.add.at(rows, single.rows["item_ids"].values, single.rows["item_rows"].values.astype(float))
    parts = [single.arrays[name].astype(float).sum(0).reshape(-1) for name in model if name != "items"]
    expected = np.concatenate([*parts, rows.reshape(-1)])
    np.testing.assert_allclose(summed(uploads), expected, atol=len(LENGTHS) * 2.0**-BITS, rtol=0)
    assert len(parts) > 5 and np.abs(expected).max() > 0.1
    if privacy.mechanism != "none":  # of 5 users, and Laplace noise of scale 0.02 beyond 1 in none of some hundreds
        assert np.abs(expected).max() < 5 * 0.05 + 1


# Pseudo items, noise and local training -------------------------------------------------------------------------------


class ClippedTraining(RecommenderClient):
    """Local training that adds noise first and pseudo items after it, the other way round than the methods do."""

    class Settings(MixtureSettings, GradientSettings, PseudoItemSettings):
        """Knobs of local training and pseudo items."""

    Work = LocalTraining
    Transforms = (Noise, PseudoItems)


def test_changes_of_an_upload_are_made_in_their_order() -> None:
    """Clipped differences of whole models by hand are uploaded as they are; pseudo items stand between them."""
    bound = LdpSettings(mechanism="laplace_linf", clip=0.02, noise=0.0)
    knobs: dict[str, Any] = {"local_lr": 0.3, "user_lr": None, "user_steps": 2, "loss": "sum", "pseudo_items": 3}
    client = ranking(ClippedTraining, privacy=bound, **knobs)
    start = random_model(client.model.shapes)
    result = round_of(client, start)
    largest = 0.0
    for user in EVERYONE:
        alone = UserByHand(user, client.model.initial_user(SEED, user)["user"], loss="sum")
        draws = sampled(user, 2, purpose="sampled items")
        change = start["items"] - alone.train(start, draws, 0.3)["items"]
        numbers, rows = result.rows["item_ids"].of(user), result.rows["item_rows"].of(user)
        real = np.isin(numbers, np.union1d(items_of(user), draws))
        np.testing.assert_allclose(rows[real], np.clip(change[numbers[real]], -0.02, 0.02), atol=2e-6)
        assert (~real).sum() <= 3 and (np.diff(numbers) > 0).all()
        largest = max(largest, np.abs(change).max())
    assert largest > 0.02 and result.rows["item_ids"].lengths.sum() > sum(LENGTHS)


# Clusters -------------------------------------------------------------------------------------------------------------


class ClusteredGradients(RecommenderClient):
    """Gradient work, with PerFedRec's embeddings and mixture, and FedGNN's noise."""

    class Settings(GradientSettings, MixtureSettings, ClusterSettings):
        """Knobs of steps, clusters, and the mixture."""

    Work = GradientWork
    Transforms = (Noise,)
    Exchanges = (ClusterEmbeddings,)
    Predictor = MixtureOfModels

    phases = ClusterEmbeddings.phases


def test_users_who_upload_gradients_can_be_clustered() -> None:
    """h_u at the received items, after the user's own step: noise on the upload does not change what it tells."""
    noise = LdpSettings(mechanism="laplace_linf", clip=0.05, noise=0.1)
    knobs: dict[str, Any] = {"user_lr": None, "user_steps": 1, "loss": "sum", "model": {"layers": 1}}
    clear, hidden = ranking(ClusteredGradients, **knobs), ranking(ClusteredGradients, privacy=noise, **knobs)
    start = random_model(clear.model.shapes)
    uploads = [round_of(client, start) for client in (clear, hidden)]
    asked = Question("embedding", {user: {} for user in EVERYONE}, 2)
    told, of_hidden = (client.answer(asked).arrays for client in (clear, hidden))
    for user in EVERYONE:
        alone = UserByHand(user, clear.model.initial_user(SEED, user)["user"], loss="sum")
        trained = alone.train(start, sampled(user, 1, purpose="sampled items"), 1.0)
        # A plain step of length 1 by the gradient is what the upload says.
        numbers, rows = uploads[0].rows["item_ids"].of(user), uploads[0].rows["item_rows"].of(user)
        np.testing.assert_allclose(rows, (start["items"] - trained["items"])[numbers], atol=2e-6)
        mine = start["items"][items_of(user)].astype(float)
        mean = (alone.own.detach().numpy() + mine.sum(0) / max(len(mine), 1) ** 0.5) / 2
        np.testing.assert_allclose(told[user]["embedding"], mean / np.linalg.norm(mean), atol=1e-5)
        np.testing.assert_array_equal(of_hidden[user]["embedding"], told[user]["embedding"])
    noised = uploads[1].rows["item_rows"].values - np.clip(uploads[0].rows["item_rows"].values, -0.05, 0.05)
    assert np.abs(noised).mean() == pytest.approx(0.1, rel=0.3)


# Flower's own strategies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[3], EVERYONE], ids=str)
def test_flowers_fedavg_gets_the_mean_of_the_users_models(ids: Sequence[int]) -> None:
    """By training examples, of whole tables: an item that a user has not touched is as it was."""
    knobs: dict[str, Any] = {"local_lr": 0.3, "user_lr": None, "user_steps": 2, "loss": "sum"}
    client = ranking(FedAvgRatingsClient, ids, attributes=True, **knobs)
    start = random_model(client.model.shapes)
    assert [value.shape for value in client.get_parameters({})] == list(client.model.shapes.values())
    arrays, examples, metrics = client.fit([start[name] for name in client.model.shapes], {"round": 4})
    expected = {name: np.zeros(value.shape) for name, value in start.items()}
    for user in ids:
        alone = UserByHand(user, client.model.initial_user(SEED, user)["user"], loss="sum", attributes=True)
        trained = alone.train(start, sampled(user, 2, server_round=4, purpose="sampled items"), 0.3)
        for name, value in trained.items():
            expected[name] += LENGTHS[user] / sum(LENGTHS[user] for user in ids) * value
    assert examples == sum(LENGTHS[user] for user in ids) and metrics["train_loss"] > 0
    for found, (name, value) in zip(arrays, expected.items(), strict=True):
        np.testing.assert_allclose(found, value, atol=3e-6, err_msg=name)
    assert np.abs(expected["items"] - start["items"]).max() > 0.01


def test_flowers_fedavg_measures_users_at_its_model() -> None:
    client = ranking(FedAvgRatingsClient)
    start = random_model(client.model.shapes)
    loss, examples, metrics = client.evaluate([start["items"]], {})
    figures = worked(client.measure(to_all(EVERYONE, start))).metrics
    assert loss == pytest.approx(1 - np.nanmean(figures["validation"])) and examples == sum(LENGTHS)
    assert metrics["test"] == pytest.approx(np.mean(figures["test"]))


def test_a_gradient_is_a_plain_step_of_one_to_flowers_fedavg() -> None:
    client = hosting(FCFClient, [3], **PENALTIES)
    model = received()
    upload = round_of(hosting(FCFClient, [3], **PENALTIES))
    items, bias = client.fit([model["items"], model["bias"]], {})[0]
    expected = model["items"].astype(float)
    expected[upload.rows["item_ids"].values] -= upload.rows["item_rows"].values
    np.testing.assert_allclose(items, expected, atol=1e-6)
    np.testing.assert_allclose(bias, model["bias"] - upload.arrays["bias"][0], atol=1e-6)
    assert np.abs(items - model["items"]).max() > 0.1


def test_flowers_fedavg_cannot_read_masked_uploads(key: Path) -> None:
    client = hosting(FedMFClient, key=key)
    with pytest.raises(SubflError, match="the masks of a sum need the ids of all who take part"):
        client.fit(client.get_parameters({}), {})
    batch = to_all(EVERYONE, {**received(), "participants": np.array(EVERYONE, np.int32)})
    result = worked(client.train(batch))
    with pytest.raises(SubflError, match=r"cannot read masked uploads: method\.masks must be false"):
        client.trained_models(batch, result)


# Composition ----------------------------------------------------------------------------------------------------------

METHODS = (FCFClient, FedMFClient, FedGNNClient, FedAvgRatingsClient, PerFedRecClient)
CENTRAL = (BiasRowClient, CentralLightGCNClient, CentralMFClient, PopularityClient)


@pytest.mark.parametrize("family", [*METHODS, *CENTRAL])
def test_no_method_is_a_variant_of_another(family: type[CohortClient]) -> None:
    """A family is at most two classes below `CohortClient`, and thus none is below another one."""
    depth = family.__mro__.index(CohortClient)
    assert depth == 2 and not any(issubclass(family, other) for other in (*METHODS, *CENTRAL) if other is not family)


@pytest.mark.parametrize("family", METHODS)
def test_a_method_says_what_its_parts_do(family: type[RecommenderClient]) -> None:
    assert set(family.phases) == {phase for part in family.part_types() for phase in part.phases}
    assert family.protects_uploads == (Noise in family.Transforms)


def test_methods_have_no_knobs_that_do_nothing() -> None:
    fcf, fedavg, perfedrec = (set(f.Settings.model_fields) for f in (FCFClient, FedAvgRatingsClient, PerFedRecClient))
    assert not fcf & {"user_lr", "user_steps", "user_weight_decay", "network_weight_decay"}
    assert not (fedavg | perfedrec) & {"download", "network_weight_decay"}
