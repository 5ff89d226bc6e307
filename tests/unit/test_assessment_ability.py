"""The graded response model and the EAP estimate, against their definitions and against independent numerics."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment.ability import (
    GRID,
    PRIOR,
    Belief,
    Curves,
    item_information,
    level_probabilities,
    report_weights,
)
from services.assessment.domain import Item, ItemId, Level, Logits, Score, ScoredAnswer, SkillId

discriminations = st.floats(0.3, 3.0)
thresholds = st.lists(st.integers(-40, 40), min_size=3, max_size=4, unique=True).map(
    lambda tenths: tuple(tenth / 10 for tenth in sorted(tenths))
)
standard_errors = st.floats(0.05, 5.0)


def an_item(name: str = "item", a: float = 1.5, b: tuple[float, ...] = (-1.0, 0.0, 1.0)) -> Item:
    return Item(
        id=ItemId(name),
        skill=SkillId("skill"),
        wording="?",
        discrimination=a,
        thresholds=tuple(Logits(edge) for edge in b),
        rubric=tuple(f"level {level}" for level in range(len(b) + 1)),
    )


def scored(item: Item, level: int, standard_error: float = 0.01) -> ScoredAnswer:
    return ScoredAnswer(item.id, Score(Level(level), standard_error))


def test_half_of_the_candidates_at_a_threshold_reach_its_level() -> None:
    b = (-1.3, 0.4, 1.1)

    at_thresholds = level_probabilities(1.7, b, np.array(b))

    for level, column in enumerate(at_thresholds.T, start=1):
        assert math.isclose(column[level:].sum(), 0.5, abs_tol=1e-12)


@given(a=discriminations, b=thresholds)
def test_level_probabilities_are_positive_and_sum_to_one_everywhere_on_the_grid(a: float, b: tuple[float, ...]) -> None:
    probabilities = level_probabilities(a, b, GRID)

    assert (probabilities > 0).all()
    assert np.allclose(probabilities.sum(axis=0), 1, rtol=0, atol=1e-12)


@given(a=discriminations, b=thresholds)
def test_level_probabilities_are_the_differences_of_logistic_curves(a: float, b: tuple[float, ...]) -> None:
    at_least = np.array([np.ones_like(GRID), *(1 / (1 + np.exp(-a * (GRID - edge))) for edge in b), 0 * GRID])

    assert np.allclose(level_probabilities(a, b, GRID), at_least[:-1] - at_least[1:], rtol=0, atol=1e-12)


@given(a=discriminations, b=thresholds)
def test_information_is_the_sum_of_squared_slopes_over_probabilities(a: float, b: tuple[float, ...]) -> None:
    step = 1e-5
    slopes = (level_probabilities(a, b, GRID + step) - level_probabilities(a, b, GRID - step)) / (2 * step)

    expected = (slopes**2 / level_probabilities(a, b, GRID)).sum(axis=0)

    assert np.allclose(item_information(a, b, GRID), expected, rtol=1e-4, atol=1e-7)


def test_without_a_score_the_estimate_is_the_prior() -> None:
    ability = Belief.given(Curves.of([an_item()]), []).ability()

    assert math.isclose(ability.theta, 0, abs_tol=1e-12)
    assert math.isclose(ability.standard_error, 1, abs_tol=1e-6)
    assert ability.answers == 0


def test_the_estimate_agrees_with_adaptive_integration_of_the_posterior() -> None:
    items = [an_item("a", 1.2, (-1.5, -0.2, 0.9)), an_item("b", 2.1, (-0.5, 0.3, 1.0, 1.8)), an_item("c", 0.8)]
    answers = [scored(items[0], 2), scored(items[1], 3), scored(items[2], 1)]
    fine = np.linspace(-10, 10, 200_001)
    density = np.exp(-(fine**2) / 2)
    for item, answer in zip(items, answers, strict=True):
        density *= level_probabilities(item.discrimination, item.thresholds, fine)[answer.score.level]
    mean = float((fine * density).sum() / density.sum())
    deviation = math.sqrt(float(((fine - mean) ** 2 * density).sum() / density.sum()))

    ability = Belief.given(Curves.of(items), answers).ability()

    assert math.isclose(ability.theta, mean, abs_tol=1e-6)
    assert math.isclose(ability.standard_error, deviation, abs_tol=1e-6)
    assert ability.answers == 3


@given(a=discriminations, b=thresholds, standard_error=standard_errors)
def test_a_better_level_never_lowers_the_estimate(a: float, b: tuple[float, ...], standard_error: float) -> None:
    item = an_item(a=a, b=b)
    curves = Curves.of([item])

    estimates = [
        Belief.given(curves, [scored(item, level, standard_error)]).ability().theta for level in range(len(b) + 1)
    ]

    assert all(right >= left - 1e-9 for left, right in pairwise(estimates))


def test_the_estimate_does_not_depend_on_the_order_of_the_answers() -> None:
    items = [an_item(name, a, b) for name, a, b in (("a", 1.1, (-2.0, 0.1, 1.0)), ("b", 1.9, (0.0, 0.5, 1.7)))]
    answers = [scored(items[0], 3, 0.5), scored(items[1], 0, 0.7)]
    curves = Curves.of(items)

    there, back = Belief.given(curves, answers), Belief.given(curves, answers[::-1])

    assert there.weights.tobytes() == back.weights.tobytes()


def test_a_certain_report_weighs_as_the_level_itself() -> None:
    assert report_weights(Score(Level(2), 0.01), 4) == [0, 0, 1, 0]


def test_a_reports_weights_follow_the_stated_formula() -> None:
    weights = report_weights(Score(Level(1), 0.8), 4)

    for true, weight in enumerate(weights):
        scatter = [math.exp(-((reported - true) ** 2) / (2 * 0.8**2)) for reported in range(4)]
        assert math.isclose(weight, scatter[1] / sum(scatter))


def test_a_less_certain_score_moves_the_estimate_less_and_leaves_it_wider() -> None:
    item = an_item(a=2.0)
    curves = Curves.of([item])

    estimates = [Belief.given(curves, [scored(item, 3, error)]).ability() for error in (0.1, 0.5, 1.0, 2.0, 50.0)]

    for sure, unsure in pairwise(estimates):
        assert sure.theta > unsure.theta
        assert sure.standard_error < unsure.standard_error
    assert math.isclose(estimates[-1].theta, 0, abs_tol=0.01)
    assert math.isclose(estimates[-1].standard_error, 1, abs_tol=0.01)


def test_answers_measured_on_another_scale_are_left_out() -> None:
    item = an_item(b=(-1.0, 0.0, 1.0))
    curves = Curves.of([item])

    belief = Belief.given(curves, [scored(item, 4), scored(an_item("unknown"), 1)])

    assert belief.answers == 0
    assert np.array_equal(belief.weights, PRIOR)


def test_five_hundred_answers_neither_underflow_nor_leave_the_grid() -> None:
    items = [an_item(f"item-{number:03}", 3.0, (-4.0, -3.9, -3.8)) for number in range(500)]

    ability = Belief.given(Curves.of(items), [scored(item, 0) for item in items]).ability()

    assert -6 <= ability.theta < -4
    assert 0 <= ability.standard_error < 1


@pytest.mark.parametrize(("level", "standard_error"), [(-1, 0.5), (0, 0.0), (0, -1.0), (0, math.nan), (0, math.inf)])
def test_what_is_not_a_score_cannot_be_made(level: int, standard_error: float) -> None:
    with pytest.raises(ValueError, match=r"level|standard error"):
        Score(Level(level), standard_error)
