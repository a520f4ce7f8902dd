"""Contract of a method's clients and strategy: settings of both sides, arrays, figures."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from subfl_flower.tasks.metric import COUNT, SHARE, Metric
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import Contract, MethodSettings, arrays_of, joined_settings, rows_of
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.ragged import RaggedSpec


class Base(MethodSettings):
    rate: float = 0.1
    layers: tuple[str, ...] = ()


class Extending(Base):
    rate: float = 0.5
    masks: bool = True


class Weighting(Base):
    weighting: str = "examples"


class Slow(Base):
    rate: float = 0.01


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [(Base, Extending), (Extending, Base), (Extending, Extending)])
def test_settings_of_which_one_extends_the_other_are_those(one: type[Base], other: type[Base]) -> None:
    assert joined_settings(one, other) is Extending


def test_settings_of_two_sides_have_the_fields_of_both() -> None:
    joined = joined_settings(Extending, Weighting)
    assert set(joined.model_fields) == {"rate", "layers", "masks", "weighting"}
    assert issubclass(joined, Extending) and issubclass(joined, Weighting)
    assert joined().model_dump() == {"rate": 0.5, "layers": (), "masks": True, "weighting": "examples"}
    with pytest.raises(pydantic.ValidationError):
        joined(smell=1)
    with pytest.raises(pydantic.ValidationError):
        joined().rate = 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("one", "other", "rate"),
    [
        (Extending, Weighting, 0.5),  # overridden by the first side alone
        (Weighting, Extending, 0.5),  # by the second side alone, though the first has the field from its base
        (Extending, Slow, 0.5),  # by both
        (Slow, Extending, 0.01),
    ],
)
def test_a_default_is_that_of_the_side_that_overrides_it(one: type[Base], other: type[Base], rate: float) -> None:
    settings = joined_settings(one, other)()
    assert settings.rate == rate  # type: ignore[attr-defined]
    assert settings.layers == ()  # type: ignore[attr-defined]


def test_sides_that_have_nothing_in_common_are_joined_too() -> None:
    class Other(MethodSettings):
        tau: float = 3.0

    assert joined_settings(Base, Other)(tau=4).model_dump() == {"rate": 0.1, "layers": (), "tau": 4.0}


# Figures --------------------------------------------------------------------------------------------------------------

VALUES = np.array([-0.1, 0.0, 0.5, 1.0, 1.1, np.nan, np.inf, -np.inf])


@pytest.mark.parametrize(
    ("metric", "allowed", "said"),
    [
        (SHARE, [0, 1, 1, 1, 0, 1, 0, 0], "from 0 to 1"),
        (Metric(0.0, 1.0, needed=True), [0, 1, 1, 1, 0, 0, 0, 0], "from 0 to 1"),
        (Metric(), [1, 1, 1, 1, 1, 1, 0, 0], "a finite number"),
        (Metric(needed=True), [1, 1, 1, 1, 1, 0, 0, 0], "a finite number"),
        (Metric(low=0.5), [0, 0, 1, 1, 1, 1, 0, 0], "from 0.5"),
        (COUNT, [0, 1, 1, 1, 1, 1, 0, 0], "from 0 to 1e+12"),
    ],
)
def test_a_figure_has_a_range_and_may_be_no_number_unless_it_is_needed(
    metric: Metric, allowed: list[int], said: str
) -> None:
    assert metric.allows(VALUES).tolist() == [bool(value) for value in allowed]
    assert str(metric) == said


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_what_is_declared_falls_into_arrays_and_rows() -> None:
    weight, ids = ArraySpec((2, 3), "float32"), RaggedSpec((), "int32", 7)
    declared = {"w": weight, "ids": ids, "b": ArraySpec((3,), "float32", needed=False)}
    assert list(arrays_of(declared)) == ["w", "b"] and arrays_of(declared)["w"] is weight
    assert rows_of(declared) == {"ids": ids}
    assert arrays_of({}) == rows_of({}) == {}


def test_an_evaluations_reply_has_figures_alone() -> None:
    contract = Contract(
        {"w": ArraySpec((2,), "float32")}, {"w": ArraySpec((2,), "float32")}, {"test": SHARE}, ("mend",)
    )
    evaluation = contract.evaluation
    assert evaluation.uploads == {} and contract.uploads != {}
    assert (evaluation.downloads, evaluation.metrics) == (contract.downloads, contract.metrics)


@pytest.mark.parametrize(
    ("spec", "shape", "dtype", "allowed"),
    [
        ((2, 3), (2, 3), "float32", True),
        ((2, 3), (3, 2), "float32", False),
        ((2, 3), (2, 3), "float64", False),
        ((2, 3), (2,), "float32", False),
        ((2, 3), (2, 3, 1), "float32", False),
        ((-1, 3), (0, 3), "float32", True),
        ((-1, 3), (99, 3), "float32", True),
        ((-1, 3), (99, 4), "float32", False),
        ((-1, 3), (3,), "float32", False),
        ((-1, -1), (5, 7), "float32", True),
        ((), (), "float32", True),
        ((), (1,), "float32", False),
    ],
)
def test_a_length_of_minus_one_varies_and_nothing_else(
    spec: tuple[int, ...], shape: tuple[int, ...], dtype: str, allowed: bool
) -> None:
    assert ArraySpec(spec, "float32").allows(shape, dtype) is allowed


def test_an_array_is_like_one_that_is_there() -> None:
    spec = ArraySpec.like(np.zeros((4, 2), np.float32))
    assert spec == ArraySpec((4, 2), "float32") and str(spec) == "float32 [4, 2]" and spec.nbytes == 32


# Choices of a stack ---------------------------------------------------------------------------------------------------


def test_a_choice_of_a_stack_gives_the_stack_back() -> None:
    stack = {"w": np.arange(6.0).reshape(3, 2), "b": np.array([1.0, 2.0, 3.0])}
    choice = Choice.of_stack(stack, 3)
    assert (choice.num_clients, choice.num_rows) == (3, 3) and choice.rows.tolist() == [[0], [1], [2]]
    assert choice.stack() == stack  # the same arrays, not copies
    some = choice.of([2, 0]).stack()
    assert some["w"].tolist() == [[4, 5], [0, 1]] and some["b"].tolist() == [3, 1]


def test_a_choice_of_one_model_for_all_stays_one_row_in_memory() -> None:
    found = Choice.for_all({"w": np.array([1.0, 2.0])}, 4).stack()["w"]
    assert found.tolist() == [[1, 2]] * 4 and found.strides[0] == 0


def test_a_choice_of_several_rows_stacks_each_clients_first() -> None:
    choice = Choice({"w": np.array([[10.0], [20.0], [30.0]])}, np.array([[2, 0], [0, 1], [2, 1], [1, 1]]))
    assert choice.stack()["w"].tolist() == [[30], [10], [30], [20]]


def test_a_choice_of_nothing_is_an_empty_stack_for_each_client() -> None:
    for choice in (Choice.of_stack({}, 5), Choice.for_all({}, 5)):
        assert choice.stack() == {} and choice.num_clients == 5 and choice.num_rows == 0
        assert choice.of([3, 1]).num_clients == 2
