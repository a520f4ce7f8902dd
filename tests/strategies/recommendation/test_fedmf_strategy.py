"""FedMF's server: it averages what it cannot see, and steps only by sums that it can read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from run_outcomes import Outcome

from subfl_flower.clients.recommendation.upload_transforms import MASKED, PARTICIPANTS, SumMasks
from subfl_flower.clients.recommendation.user_parts import Upload
from subfl_flower.clients.recommendation.users import Chunk
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.privacy.secure_sum import masked, quantise
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.recommender_file import Recommender
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.fedmf import FedMF
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.contract import RunContext, arrays_of, rows_of
from subfl_flower.wire.roster import Roster

CLIENTS = (2, 3, 5, 9)
INITIAL = {"items": np.arange(6, dtype=np.float32).reshape(3, 2), "bias": np.array([1.0], np.float32)}
KEY = bytes(range(32))
SMALL = (
    "method=fedmf",
    "dataset.num_users=40",
    "dataset.num_items=30",
    "dataset.ratings_per_user=12",
    "method.users_per_round=15",
    "method.evaluate_every=5",
    "model.dim=4",
    "model.shrinkage=0",
    "method.biases=learnt",
    "federation.rounds=10",
)


def server(away: Sequence[int] = (), **knobs: Any) -> FedMF:
    sizes = np.full(4, 7.0)
    nodes = tuple(None if client in away else client % 2 for client in CLIENTS)
    roster = Roster(CLIENTS, nodes, sizes, sizes, sizes, 3, 0, False)
    chosen = {"users_per_round": 4, "server_optimizer": "sgd", "server_lr": 0.5, **knobs}
    initial = {name: value.copy() for name, value in INITIAL.items()}
    return FedMF(RunContext(settings=FedMF.Settings(**chosen), initial=initial), roster)


def updates(gradients: dict[int, np.ndarray], told: Sequence[int]) -> Updates:
    """Uploads of the clients of `gradients`, when they were told that those of `told` take part."""
    uploads = [masked(quantise(own, 24), client, told, KEY, b"round 1", 2) for client, own in gradients.items()]
    return Updates(
        server_round=1,
        positions=np.array([CLIENTS.index(client) for client in gradients]),
        arrays={MASKED: np.stack(uploads)},
        ragged={},
        metrics={},
        failures={},
        bytes_up=np.zeros(4, np.int64),
        bytes_down=np.zeros(4, np.int64),
        client_seconds=0.0,
    )


GRADIENTS = {client: np.arange(7.0) * client for client in CLIENTS}
"""The bias's gradient is 0, that of the table's k-th entry (k + 1) times the client's id."""


def test_it_steps_by_the_mean_gradient_of_the_participants() -> None:
    """The ids' mean is 19/4; half of that is taken off for every unit of gradient."""
    strategy = server()
    strategy.take(updates(GRADIENTS, CLIENTS))
    expected = INITIAL["items"].reshape(-1) - 0.5 * 19 / 4 * np.arange(1, 7)
    np.testing.assert_allclose(strategy.parameters["items"].numpy().reshape(-1), expected, atol=1e-6)
    assert strategy.parameters["bias"].tolist() == [1.0]
    assert strategy.uploads.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("missing", CLIENTS)
def test_a_round_without_a_participant_makes_no_step(missing: int, caplog: pytest.LogCaptureFixture) -> None:
    strategy = server()
    came = {client: own for client, own in GRADIENTS.items() if client != missing}
    with caplog.at_level(logging.WARNING, logger="flwr"):
        logging.getLogger("flwr").addHandler(caplog.handler)
        strategy.take(updates(came, CLIENTS))
        logging.getLogger("flwr").removeHandler(caplog.handler)
    for name, value in INITIAL.items():
        np.testing.assert_array_equal(strategy.parameters[name].numpy(), value)
    assert "round 1 makes no step" in caplog.text and "the 1 participants who did not reply" in caplog.text
    assert not strategy.uploads.any()


def test_everyone_is_told_the_same_participants() -> None:
    sent = server().instructions(1, [1, 3])
    assert sent[PARTICIPANTS].dtype == np.int32 and sent[PARTICIPANTS].tolist() == [list(CLIENTS)] * 2
    assert sent[PARTICIPANTS].strides[0] == 0  # stored once in a message
    few = server(users_per_round=2)
    told = few.instructions(7, [0])[PARTICIPANTS][0].tolist()
    assert told == [CLIENTS[position] for position in few.participants(7)] and len(told) == 2


def test_who_is_away_is_not_counted_on() -> None:
    strategy = server(away=[3])
    told = strategy.instructions(1, [0, 2, 3])[PARTICIPANTS][0].tolist()
    assert told == [2, 5, 9]
    strategy.take(updates({client: GRADIENTS[client] for client in told}, told))
    assert strategy.parameters["items"][0, 0] == pytest.approx(0 - 0.5 * 16 / 3, abs=1e-6)


def test_only_masked_numbers_of_the_right_length_are_accepted() -> None:
    strategy = server()
    uploads = strategy.contract.uploads
    assert {name: (spec.shape, spec.dtype) for name, spec in uploads.items()} == {MASKED: ((7,), "uint64")}
    plain = server(masks=False).contract.uploads
    assert list(arrays_of(plain)) == ["bias"] and list(rows_of(plain)) == ["item_ids", "item_rows"]
    assert PARTICIPANTS not in server(masks=False).instructions(1, [0])


def test_masked_uploads_do_not_show_how_many_hold_a_row() -> None:
    with pytest.raises(ValidationError, match="must be false with row_average=uploads"):
        FedMF.Settings(row_average="uploads")
    assert FedMF.Settings(row_average="uploads", masks=False).row_average == "uploads"
    assert FedMF.Settings().row_average == "participants"


def _errors(run: Outcome) -> list[list[float]]:
    """Validation and test error after rounds 5 and 10."""
    return [[record["validation"], record["test"]] for record in (run.rounds[4], run.rounds[9])]


@pytest.mark.parametrize("nodes", [1, 3])
def test_masks_change_a_run_by_no_more_than_rounding(inline_run: Callable[..., Outcome], nodes: int) -> None:
    plain = inline_run(*SMALL, "method.masks=false")
    hidden = inline_run(*SMALL, f"runtime.nodes={nodes}")
    evaluated, found = (
        [(run.rounds[r]["validation"], run.rounds[r]["test"]) for r in (4, 9)] for run in (plain, hidden)
    )
    assert evaluated[0][0] > evaluated[1][0]
    np.testing.assert_allclose(found, evaluated, atol=1e-4)
    assert found != evaluated  # fixed-point numbers are not floats: they did go another way
    # 30 items of 5 numbers and the bias, 8 bytes each, from each of 15 users.
    assert {record["bytes_up"] for record in hidden.rounds} == {15 * 8 * (30 * 5 + 1)}


def test_a_run_in_which_somebody_always_fails_never_steps(
    inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def table(outcome: Outcome) -> np.ndarray:
        (path,) = (outcome.directory / "users").glob("node-*.safetensors")
        items: np.ndarray = Recommender.read(path).shared["items"]
        return items

    everyone = (*SMALL, "method.users_per_round=null", "runtime.on_client_failure=continue", "runtime.chunk=10")
    initial = StackedRecommender(RecommenderSettings(name="recommender", gnn="none", dim=4), 30).initial_of(0)["items"]
    assert np.abs(table(inline_run(*everyone)) - initial).max() > 0.05

    mask = SumMasks.__call__

    def failing(self: SumMasks, upload: Upload, chunk: Chunk, batch: Batch) -> Upload:
        if 7 in chunk.ratings.user_ids:
            raise RuntimeError("no battery")
        return mask(self, upload, chunk, batch)

    monkeypatch.setattr(SumMasks, "__call__", failing)
    outcome = inline_run(*everyone)
    assert [record["failures"] for record in outcome.rounds] == [{"7": "RuntimeError: no battery"}] * 10
    np.testing.assert_array_equal(table(outcome), initial)


def test_attack_masks_come_back_after_a_resume() -> None:
    """Each exchange announces another number, whether the server was started again or not."""
    one, other = server(), server()
    said = [each.announcements["mask_attempt"] for each in (one, one, other)]
    assert len(set(said)) == 3 and min(said) >= 0
    assert "mask_attempt" not in server(masks=False).announcements
