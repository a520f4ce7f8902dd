from __future__ import annotations

import numpy as np
import pytest

from subfl_flower.server.participation import Participation


@pytest.mark.parametrize(
    ("fraction", "num_clients", "count"),
    [(0.4, 10, 4), (0.5, 5, 2), (0.34, 3, 1), (0.26, 10, 3), (0.97, 30, 29), (0.001, 7, 1), (1e-9, 1, 1)],
)
def test_a_round_draws_the_share_without_replacement_in_ascending_order(
    fraction: float, num_clients: int, count: int
) -> None:
    for server_round in range(1, 20):
        drawn = list(Participation(fraction, seed=3).draw(server_round, num_clients))
        assert len(drawn) == count and drawn == sorted(set(drawn))
        assert set(drawn) <= set(range(num_clients))


def test_everyone_takes_part_by_default_and_where_the_share_rounds_to_all() -> None:
    assert list(Participation().draw(1, 6)) == list(Participation(1.0, seed=9).draw(5, 6)) == list(range(6))
    assert list(Participation(0.96).draw(1, 10)) == list(range(10))


def test_draws_differ_between_rounds_and_seeds_and_repeat_for_the_same() -> None:
    def draws(seed: int) -> list[list[int]]:
        return [list(Participation(0.4, seed).draw(server_round, 10)) for server_round in range(1, 31)]

    assert draws(0) == draws(0)
    assert len(set(map(tuple, draws(0)))) > 20  # of 210 possible draws
    assert sum(one == other for one, other in zip(draws(0), draws(1), strict=True)) < 5


def test_a_round_is_drawn_alike_whatever_was_drawn_before() -> None:
    participation = Participation(0.3, seed=4)
    alone = list(participation.draw(17, 20))
    for server_round in range(1, 17):
        participation.draw(server_round, 20)
    assert list(participation.draw(17, 20)) == alone


def test_all_clients_are_drawn_equally_often() -> None:
    """Of 2,000 rounds a client takes part in 600, give or take five standard deviations of 20.5."""
    rounds = [Participation(0.3, seed=1).draw(server_round, 10) for server_round in range(1, 2001)]
    times = np.bincount([position for drawn in rounds for position in drawn], minlength=10)
    assert times.sum() == 6000 and np.abs(times - 600).max() < 103


def test_attack_absent_clients_take_the_places_of_present_ones() -> None:
    """Six of 943 users are there: rounds of 94 that draw among all would often have none of them."""
    present = [3, 40, 41, 400, 900, 942]
    participation = Participation(0.1, seed=2)
    assert all(list(participation.draw(server_round, 943, present)) == present for server_round in range(1, 30))
    few = [list(Participation(0.002, seed=2).draw(server_round, 943, present)) for server_round in range(1, 60)]
    assert all(len(drawn) == 2 and drawn[0] < drawn[1] for drawn in few)
    assert set(np.concatenate(few).tolist()) == set(present)


def test_a_draw_among_all_present_clients_is_the_draw_among_all() -> None:
    for server_round in range(1, 20):
        participation = Participation(0.3, seed=5)
        alone = list(participation.draw(server_round, 20))
        assert list(participation.draw(server_round, 20, range(20))) == alone
        assert list(participation.draw(server_round, 20, [])) == alone


def test_a_round_of_all_clients_names_absent_ones() -> None:
    assert list(Participation().draw(1, 5, [0, 3])) == [0, 1, 2, 3, 4]
