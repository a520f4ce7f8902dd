"""Whole runs with secure sums: the numbers of plain runs, whoever is lost; below the threshold nothing is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_outcomes import Outcome, run_inline
from scipy.stats import chisquare

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.composition import composed_config, composed_job
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.node.masking.summing import SummingClients
from subfl_flower.server.checkpoint import Checkpoint
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.secure_sums.summed_round import SummedRound
from subfl_flower.server.updates import Updates
from subfl_flower.simulation import simulate
from subfl_flower.wire.summed import MASKED, REVEAL

DIGITS = (
    *("dataset=digits", "partition=random", "partition.clients=10", "method=fedavg", "model.hidden=8"),
    *("federation.rounds=3", "runtime.nodes=3", "runtime.on_client_failure=continue", "record.checkpoint_every=3"),
)
SUMS = "secure_sums.enabled=true"
STEPS = {"keys": "_keys", "shares": "_shares", "upload": "_masked_row", "reveal": "_revealed"}


def parameters_of(outcome: Outcome) -> dict[str, np.ndarray]:
    """The server's parameters of client 0 after the last round."""
    state = Checkpoint.read(outcome.directory / "checkpoint").strategy
    return {name: values[0] for name, values in state.items() if name.startswith("parameters.")}


def assert_close(one: Outcome, other: Outcome) -> None:
    found, expected = parameters_of(one), parameters_of(other)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


def lose(monkeypatch: pytest.MonkeyPatch, lost: Sequence[int], step: str) -> None:
    """Have some clients fail from round 2 on in a step of the secure sum."""
    name = STEPS[step]
    whole = getattr(SummingClients, name)

    def failing(self: SummingClients, client_id: int, *rest: Any) -> Any:
        if client_id in lost and self._round > 1:
            raise SubflError("the line is cut")
        return whole(self, client_id, *rest)

    monkeypatch.setattr(SummingClients, name, failing)


def lose_in_training(monkeypatch: pytest.MonkeyPatch, lost: Sequence[int]) -> None:
    """Have some clients fail from round 2 on where they train."""
    steps = SubgraphClient.take_steps

    def failing(self: SubgraphClient, model: Any, state: Any, chunk: Any, batch: Any) -> Any:
        if batch.server_round > 1 and set(lost).intersection(chunk.client_ids):
            raise SubflError("the line is cut")
        return steps(self, model, state, chunk, batch)

    monkeypatch.setattr(SubgraphClient, "take_steps", failing)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[int, ...]], Outcome]:
    """Runs without secure sums in which some clients are lost, each carried out once."""
    done: dict[tuple[int, ...], Outcome] = {}

    def run(lost: tuple[int, ...]) -> Outcome:
        if lost not in done:
            with pytest.MonkeyPatch.context() as patch:
                lose_in_training(patch, lost)
                done[lost] = run_inline(tmp_path_factory.mktemp("plain") / "run", *DIGITS, "runtime.chunk=1")
        return done[lost]

    return run


def test_secure_fedavg_is_fedavg(plain: Callable[..., Outcome], inline_run: Callable[..., Outcome]) -> None:
    secure = inline_run(*DIGITS, SUMS)
    assert_close(secure, plain(()))
    for one, other in zip(secure.rounds, plain(()).rounds, strict=True):
        assert one["validation"] == pytest.approx(other["validation"], abs=1e-3)
    assert [record["secure_sums"]["summed"] for record in secure.rounds] == [10, 10, 10]
    told = secure.summary["secure_sums"]
    assert (told["rounds"], told["opened"]) == (3, 3) and told["seconds"] > 0
    # 140 bytes of keys, ten boxes of 94 and their ids, ten shares of 33 and their ids: of each of ten clients.
    assert told["bytes_up"] == 3 * 10 * (140 + 10 * (94 + 8) + 10 * (33 + 8))
    assert secure.summary["bytes_up"] == told["bytes_up"] + sum(record["bytes_up"] for record in secure.rounds)


@pytest.mark.parametrize("step", ["keys", "shares", "training", "upload"])
@pytest.mark.parametrize("lost", [(6,), (0, 3, 9)], ids=["one", "three"])
def test_clients_lost_before_their_upload_are_left_out(
    step: str,
    lost: tuple[int, ...],
    plain: Callable[..., Outcome],
    inline_run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if step == "training":
        lose_in_training(monkeypatch, lost)
    else:
        lose(monkeypatch, lost, step)
    secure = inline_run(*DIGITS, SUMS, "runtime.chunk=1")
    assert_close(secure, plain(lost))
    assert [record["secure_sums"]["summed"] for record in secure.rounds] == [10, 10 - len(lost), 10 - len(lost)]
    assert set(secure.rounds[1]["failures"]) == {str(client) for client in lost}


@pytest.mark.parametrize("lost", [(6,), (0, 3, 9)], ids=["one", "three"])
def test_clients_lost_after_their_upload_are_in_the_sum(
    lost: tuple[int, ...],
    plain: Callable[..., Outcome],
    inline_run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lose(monkeypatch, lost, "reveal")
    secure = inline_run(*DIGITS, SUMS)
    assert_close(secure, plain(()))
    assert [record["secure_sums"]["summed"] for record in secure.rounds] == [10, 10, 10]


@pytest.mark.parametrize("step", ["training", "upload", "reveal"])
def test_below_the_threshold_nothing_is_opened(
    step: str, inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of ten are lost, and seven are needed: the round makes no step, and nobody is asked for shares in vain."""
    asked: list[tuple[str, int]] = []
    ask = Exchange.ask

    def watching(self: Exchange, action: str, *rest: Any, **more: Any) -> Any:
        asked.append((action, self.next_round))
        return ask(self, action, *rest, **more)

    monkeypatch.setattr(Exchange, "ask", watching)
    lost = (1, 2, 4, 8)
    if step == "training":
        lose_in_training(monkeypatch, lost)
    else:
        lose(monkeypatch, lost, step)
    secure = inline_run(*DIGITS, SUMS, "runtime.chunk=1")
    once = run_inline(secure.directory.parent / "once", *DIGITS, "federation.rounds=1", "record.checkpoint_every=1")
    assert_close(secure, once)
    assert [record["secure_sums"]["opened"] for record in secure.rounds] == [1, 0, 0]
    if step != "reveal":
        assert [server_round for action, server_round in asked if action == REVEAL] == [1]


def test_a_closed_sum_ends_a_run_that_tolerates_no_failure(
    inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, (1,), "reveal")
    with pytest.raises(RunFailure, match=r"^client 1 failed in query.sum_reveal: the line is cut$"):
        inline_run(*DIGITS, SUMS, "runtime.on_client_failure=stop")


def test_too_few_keys_end_a_round_in_one_sentence(
    inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, range(8), "keys")
    with pytest.raises(RunFailure, match=r"^round 2 has no secure sum: a secure sum over 2 clients is refused; "):
        inline_run(*DIGITS, SUMS)


def test_the_server_sees_uniform_numbers(inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """A chi-squared test of the bytes of all uploads, and of the differences of two clients' uploads."""
    seen: list[np.ndarray] = []
    whole = SummedRound.open

    def watching(self: SummedRound, updates: Updates) -> Updates:
        assert set(updates.arrays) == {MASKED}
        seen.append(np.array(updates.arrays[MASKED]))
        return whole(self, updates)

    monkeypatch.setattr(SummedRound, "open", watching)
    inline_run(*DIGITS, SUMS, "model.hidden=64")
    for uploads in seen:
        for values in (uploads, uploads[0] - uploads[1], uploads[:9].sum(0, dtype=np.uint64)):
            counts = np.bincount(np.ascontiguousarray(values).view(np.uint8).reshape(-1), minlength=256)
            assert chisquare(counts).pvalue > 1e-6
    assert not (seen[0] == seen[1]).any()
    total = seen[0].sum(0, dtype=np.uint64)  # self-masks remain: not even the sum of all uploads is open
    assert chisquare(np.bincount(total.view(np.uint8), minlength=256)).pvalue > 1e-6


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=fedprox",),
        ("method=fedper",),
        ("method=fedavg", "method.weighting=uniform"),
        ("method=fedavg", "federation.fraction=0.7"),
        ("method=fedgcn", "runtime.on_client_failure=stop"),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_methods_with_equal_rows_keep_their_numbers(
    overrides: tuple[str, ...], inline_run: Callable[..., Outcome]
) -> None:
    assert_close(inline_run(*DIGITS, *overrides, SUMS), inline_run(*DIGITS, *overrides))


def test_clusters_are_summed_by_themselves_once_they_are_formed(
    inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten clients are cut into fives; a further cut would leave two, which is fewer than min_cluster."""
    monkeypatch.setattr(
        "subfl_flower.strategies.subgraphs.gcfl.minimum_cut",
        lambda weights: (list(range(len(weights) // 2)), list(range(len(weights) // 2, len(weights)))),
    )
    overrides = (*DIGITS, "method=gcfl", "method.first_split=1", "method.min_cluster=3", "method.epsilon1=1")
    secure = inline_run(*overrides, SUMS, "secure_sums.from_round=2")
    assert ["secure_sums" in record for record in secure.rounds] == [False, True, True]
    assert [record["secure_sums"]["sums"] for record in secure.rounds[1:]] == [2, 2]
    found, expected = (
        Checkpoint.read(each.directory / "checkpoint").strategy for each in (secure, inline_run(*overrides))
    )
    assert found["cluster_of"].tolist() == expected["cluster_of"].tolist() == [0] * 5 + [1] * 5
    for name in (name for name in expected if name.startswith("parameters.")):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
        assert not np.allclose(expected[name][0], expected[name][9], atol=1e-3)


def test_a_clients_update_is_scaled_to_the_announced_norm(inline_run: Callable[..., Outcome]) -> None:
    """With equal weights the mean's update is at most as long; here clients move in much the same direction."""
    once = (*DIGITS, "method.weighting=uniform", "federation.rounds=1", "record.checkpoint_every=1")
    start = parameters_of(inline_run(*once, SUMS, "secure_sums.clip=1e-9"))
    free, wide, narrow = (
        parameters_of(inline_run(*once, SUMS, *more))
        for more in ((), ("secure_sums.clip=1000",), ("secure_sums.clip=0.1",))
    )

    def length(found: dict[str, np.ndarray]) -> float:
        return float(np.sqrt(sum(np.square(found[name] - values, dtype=float).sum() for name, values in start.items())))

    for name, values in free.items():
        np.testing.assert_array_equal(wide[name], values)
    assert 0.05 < length(narrow) <= 0.1 + 1e-5 < length(free)


RATINGS = (
    *("dataset=synthetic_ratings", "dataset.num_users=12", "dataset.num_items=130", "dataset.ratings_per_user=8"),
    *("model.dim=4", "method.users_per_round=8", "federation.rounds=3", "record.checkpoint_every=3"),
)


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=fedavg", "task=ranking"),
        ("method=fedavg", "task=ranking", "method.row_average=participants"),
        ("method=fedmf", "method.masks=false"),
        ("method=fcf",),
        ("method=fedgnn", "method.max_neighbours=0"),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_users_sums_keep_the_numbers(overrides: tuple[str, ...], inline_run: Callable[..., Outcome]) -> None:
    secure, open_ = inline_run(*RATINGS, *overrides, SUMS), inline_run(*RATINGS, *overrides)
    found, expected = (Checkpoint.read(each.directory / "checkpoint").strategy for each in (secure, open_))
    names = [name for name in expected if name.startswith("server/parameters.")]
    assert names
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)


def test_a_resumed_run_goes_on_with_new_keys(tmp_path: Path, inline_run: Callable[..., Outcome]) -> None:
    whole = inline_run(*DIGITS, SUMS)
    begun = run_inline(tmp_path / "begun", *DIGITS, SUMS, "federation.rounds=2", "record.checkpoint_every=2")
    job = composed_job([f"resume={begun.directory}", "federation.rounds=3", "record.checkpoint_every=1"])
    simulate(job.config, job.directory, resume=True)
    assert_close(begun, whole)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("method=fedpub",), "the server of method=fedpub works with each client's own update"),
        (("method=subpfed",), "the server of method=subpfed works with each client's own update"),
        (("method=perfedrec",), "the server of method=perfedrec works with each client's own update"),
        (("method=gcfl",), r"secure_sums.from_round: method=gcfl forms its clusters .* must be larger \(found 1\)"),
        (("method=gcfl", "secure_sums.from_round=30"), "method.min_cluster: a cluster's sum needs"),
        (("method=fedavg", "secure_sums.from_round=2"), "secure_sums.from_round: .* only 1 is allowed"),
        (("method=fedavg", "wire.absent_features=skip"), "wire.absent_features: must be send with secure_sums"),
        (("method=fedavg", "secure_sums.threshold=0.4"), "secure_sums.threshold: .*greater than or equal to 0.5"),
        (("method=fedavg", "secure_sums.neighbours=5"), "secure_sums.neighbours"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_runs_that_need_more_than_a_sum_are_refused_in_a_sentence(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        composed_config([*overrides, SUMS])
